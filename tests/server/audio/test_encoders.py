"""PCM and the encoders, checked by decoding them with another library, or with libav where it wrote what it reads."""

from __future__ import annotations

import gc
import io
import struct
import subprocess
import sys
import wave
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import av
import av.logging
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.audio.encoders import CONTENT_TYPES, MARK, make_encoder
from server.audio.formats import FORMATS, AudioFormat, MissingCodecError
from server.audio.ogg import LAST, Pages
from server.audio.pcm import to_s16le
from tests.server.fakes import SAMPLE_RATE, tone
from tests.server.running import ROOT

FRAMES = 25
AAC_FRAME = 1024
MP3_FRAME = 576
LOSSY = ("mp3", "opus", "aac")
BUFFERED = (True, False)
OF_UNKNOWN_SIZES = ("Ignoring maximum wav data size", "Packet corrupt (stream = 0, dts = NOPTS)")
"""What libav says of every WAV that is sent before its size is known: it expects four gigabytes, and more than none."""


def speech() -> NDArray[np.float32]:
    return np.concatenate([tone(frame) for frame in range(FRAMES)])


def encode(
    audio_format: AudioFormat, samples: NDArray[np.float32], cuts: list[int], *, complete: bool, mark: str = MARK
) -> bytes:
    """The file of samples that come in pieces, cut at `cuts`."""
    encoder = make_encoder(audio_format, SAMPLE_RATE, mark)
    body = bytearray()
    for start, end in pairwise([0, *cuts, len(samples)]):
        body += encoder.encode(samples[start:end])
    body += encoder.finish()
    if complete:
        encoder.complete(body)
    return bytes(body)


def encode_frames(
    audio_format: AudioFormat, samples: NDArray[np.float32], *, complete: bool, mark: str = MARK
) -> bytes:
    return encode(audio_format, samples, list(range(1920, len(samples), 1920)), complete=complete, mark=mark)


def data_of(wav: bytes) -> int:
    """Where the samples begin."""
    return wav.index(b"data") + 8


class Pipe:
    """A body as it comes from a socket: it can only be read on."""

    def __init__(self, body: bytes) -> None:
        self.read = io.BytesIO(body).read


def decode(audio_format: AudioFormat, body: bytes) -> tuple[NDArray[np.float32], int]:
    """What a player makes of a body, and its sample rate; anything it has to complain of is an error."""
    options = {"ar": str(SAMPLE_RATE), "ac": "1"} if audio_format == "pcm" else {}
    name = {"pcm": "s16le", "opus": "ogg"}.get(audio_format, audio_format)
    level = av.logging.get_level()
    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture() as complaints, av.open(Pipe(body), format=name, options=options) as file:
            stream = file.streams.audio[0]
            assert stream.layout.nb_channels == 1
            to_float = av.AudioResampler(format="flt", layout="mono", rate=stream.rate)
            parts = [part.to_ndarray()[0] for frame in file.decode(stream) for part in to_float.resample(frame)]
    finally:
        av.logging.set_level(level)
    tolerated = OF_UNKNOWN_SIZES if body.startswith(b"RIFF\xff\xff\xff\xff") else ()
    assert [message for _, _, message in complaints if not message.startswith(tolerated)] == []
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), stream.rate


def expected_length(audio_format: AudioFormat, samples: int) -> int:
    """How many samples a player plays: all whole frames, and the encoder's delay, where the format cannot say more."""
    if audio_format == "aac":
        return (1 + -(-samples // AAC_FRAME)) * AAC_FRAME
    return samples * 2 if audio_format == "opus" else samples


def test_samples_are_scaled_rounded_and_clipped() -> None:
    samples = np.array([0, 1, -1, 2, -2, 0.5, 0.6 / 32767], np.float32)
    assert np.frombuffer(to_s16le(samples), "<i2").tolist() == [0, 32767, -32767, 32767, -32767, 16384, 1]


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_no_audio(audio_format: AudioFormat, bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        make_encoder(audio_format, SAMPLE_RATE).encode(np.array([0, bad], np.float32))


@pytest.mark.parametrize("audio_format", FORMATS)
@given(cuts=st.lists(st.integers(0, 5 * 1920), max_size=8).map(sorted))
@settings(max_examples=15, deadline=None)
def test_cuts_make_no_difference(audio_format: AudioFormat, cuts: list[int]) -> None:
    samples = speech()[: 5 * 1920]
    for complete in BUFFERED:
        assert encode(audio_format, samples, cuts, complete=complete) == encode(
            audio_format, samples, [1], complete=complete
        )


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("complete", BUFFERED)
@pytest.mark.parametrize("samples", [1, 2, 959, 1920, 24_000, 24_001, 48_000])
def test_the_length_is_right(audio_format: AudioFormat, complete: bool, samples: int) -> None:
    decoded, rate = decode(audio_format, encode_frames(audio_format, speech()[:samples], complete=complete))
    assert rate == (48_000 if audio_format == "opus" else SAMPLE_RATE)  # Opus always decodes at 48 kHz
    if audio_format == "mp3":
        assert 0 <= len(decoded) - samples <= 4 * MP3_FRAME
    else:
        assert len(decoded) == expected_length(audio_format, samples)


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("complete", BUFFERED)
def test_a_tone_survives(audio_format: AudioFormat, complete: bool) -> None:
    decoded, rate = decode(audio_format, encode_frames(audio_format, speech(), complete=complete))
    middle = decoded[rate // 4 : rate // 4 + rate].astype(float)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(rate)))
    assert np.argmax(spectrum) == 440
    phase = 2 * np.pi * 440 * np.arange(rate) / rate
    basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    fit, *_ = np.linalg.lstsq(basis, middle)
    assert np.hypot(*fit) == pytest.approx(0.5, rel=0.06)  # LAME takes 5 % off against clipping
    noise = middle - basis @ fit
    assert 10 * np.log10(np.mean(middle**2) / np.mean(noise**2)) > (30 if audio_format in LOSSY else 80)


@pytest.mark.parametrize("audio_format", LOSSY)
def test_sound_is_heard_when_it_should_be(audio_format: AudioFormat) -> None:
    onset = 12_345
    samples = speech()
    samples[:onset] = 0
    decoded, rate = decode(audio_format, encode_frames(audio_format, samples, complete=False))
    heard = int(np.argmax(np.abs(decoded) > 0.25)) / rate * SAMPLE_RATE
    delay = {"mp3": 1105, "aac": AAC_FRAME, "opus": 0}[
        audio_format
    ]  # LAME's and its decoder's; libav's; told to players
    assert heard == pytest.approx(onset + delay, abs=60)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_bytes_come_soon_and_steadily(audio_format: AudioFormat) -> None:
    encoder = make_encoder(audio_format, SAMPLE_RATE)
    sizes = [len(encoder.encode(tone(frame))) for frame in range(FRAMES)]
    block = 3 if audio_format == "flac" else 1  # frames that hold 4096 samples
    sums = [sum(sizes[start : start + block]) for start in range(0, FRAMES // block * block, block)]
    assert any(sums[:2])
    assert all(sums[2:])
    assert max(sums[2:]) < 3 * np.median(sums)
    assert len(encoder.finish()) < 3 * np.median(sums)


@pytest.mark.parametrize(("audio_format", "samples"), [("pcm", 1800), ("wav", 1800), ("opus", 2 * 1284), ("mp3", 1152)])
def test_the_first_codec_frame_is_heard_as_soon_as_it_is_made(audio_format: AudioFormat, samples: int) -> None:
    """Of its 80 ms a join holds back 5; Opus has 20 ms in a packet, of which the first 6.5 are its delay."""
    begun = make_encoder(audio_format, SAMPLE_RATE, MARK).encode(speech()[:1800])
    assert len(decode(audio_format, begun)[0]) == samples


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 510, 1275])
def test_a_page_of_ogg_holds_packets_of_any_size(size: int) -> None:
    packets = [bytes([7]) * size, b"last"]
    page = Pages().page(packets, 960, LAST)
    assert page[:4] == b"OggS"
    assert struct.unpack_from("<Bq", page, 5) == (LAST, 960)
    segments = page[27 : 27 + page[26]]
    assert [segments.count(255), sum(segments)] == [size // 255, size + 4]
    assert page[27 + page[26] :] == b"".join(packets)


@pytest.mark.parametrize("audio_format", ["wav", "flac", "pcm"])
@pytest.mark.parametrize("complete", BUFFERED)
def test_lossless_formats_lose_nothing(audio_format: AudioFormat, complete: bool) -> None:
    body = encode_frames(audio_format, speech(), complete=complete)
    decoded, _ = decode(audio_format, body)
    assert (decoded * 32768).astype("<i2").tobytes() == to_s16le(speech())
    if complete and audio_format != "pcm":
        another, rate = soundfile.read(io.BytesIO(body), dtype="int16")
        assert (rate, another.tobytes()) == (SAMPLE_RATE, to_s16le(speech()))


def test_a_completed_wav_has_its_sizes() -> None:
    for mark, begin in ((MARK, 190), ("", 44)):
        body = encode_frames("wav", speech(), complete=True, mark=mark)
        assert data_of(body) == begin
        assert struct.unpack_from("<4sI4s", body) == (b"RIFF", len(body) - 8, b"WAVE")
        assert struct.unpack_from("<4sI", body, begin - 8) == (b"data", len(body) - begin)
        assert body[begin:] == to_s16le(speech())
        with wave.open(io.BytesIO(body)) as file:
            assert (file.getframerate(), file.getnframes()) == (SAMPLE_RATE, len(speech()))


def test_a_streamed_wav_says_until_the_end() -> None:
    for mark, begin in ((MARK, 190), ("", 44)):
        body = encode_frames("wav", speech(), complete=False, mark=mark)
        assert data_of(body) == begin
        assert struct.unpack_from("<I", body, 4) == struct.unpack_from("<I", body, begin - 4) == (0xFFFFFFFF,)
        assert body[begin:] == to_s16le(speech())
        with wave.open(Pipe(body)) as file:  # type: ignore[arg-type]
            assert file.readframes(len(speech()) + 1) == to_s16le(speech())


MARKED = {"mp3", "opus", "flac", "wav"}


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("complete", BUFFERED)
def test_files_say_that_they_are_synthetic(audio_format: AudioFormat, complete: bool) -> None:
    body = encode_frames(audio_format, speech(), complete=complete)
    plain = encode_frames(audio_format, speech(), complete=complete, mark="")
    assert (MARK.encode() in body) == (audio_format in MARKED)
    assert b"ynthetic" not in plain
    if audio_format not in MARKED:
        assert body == plain
        return
    with av.open(io.BytesIO(body)) as file:
        told = {**file.metadata, **file.streams.audio[0].metadata}
    assert told["comment"] == MARK
    assert np.array_equal(decode(audio_format, body)[0], decode(audio_format, plain)[0]), "the sound is the same"


def test_the_mark_is_no_sound() -> None:
    encoder = make_encoder("mp3", SAMPLE_RATE, MARK)
    assert encoder.encode(tone(0)[:100]) == b""
    first = encoder.encode(tone(0))
    assert first.startswith(b"ID3")
    assert len(first) > 2 * len(MARK)


@pytest.mark.parametrize("complete", BUFFERED)
def test_only_a_completed_flac_knows_its_length_and_checksum(complete: bool) -> None:
    body = encode_frames("flac", speech(), complete=complete)
    assert body[:4] == b"fLaC"
    streaminfo = body[8 : 8 + 34]
    total = int.from_bytes(streaminfo[13:18]) & (2**36 - 1)  # RFC 9639, 8.2
    assert total == (len(speech()) if complete else 0)
    assert any(streaminfo[18:]) == complete
    if complete:
        assert soundfile.info(io.BytesIO(body)).frames == len(speech())


def test_another_library_reads_the_opus_to_its_length() -> None:
    info = soundfile.info(io.BytesIO(encode_frames("opus", speech(), complete=False)))
    assert (info.format, info.subtype, info.channels) == ("OGG", "OPUS", 1)
    assert info.duration == pytest.approx(len(speech()) / SAMPLE_RATE, abs=1e-4)


def test_mp3_is_one_stream_at_our_rate() -> None:
    with soundfile.SoundFile(io.BytesIO(encode_frames("mp3", speech(), complete=True))) as file:
        assert (file.samplerate, file.channels, file.format) == (SAMPLE_RATE, 1, "MP3")
        assert 0 <= len(file.read()) - len(speech()) <= 4 * MP3_FRAME


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("complete", BUFFERED)
def test_no_samples_make_no_sound(audio_format: AudioFormat, complete: bool) -> None:
    body = encode(audio_format, speech()[:0], [], complete=complete, mark="")
    marked = encode(audio_format, speech()[:0], [0], complete=complete)
    assert (MARK.encode() in marked) == (audio_format in MARKED - {"flac"}), "libsndfile writes no FLAC without samples"
    assert len(body) <= {"mp3": 2 * 288, "opus": 97, "aac": 0, "flac": 86, "wav": 44, "pcm": 0}[audio_format]


@pytest.mark.parametrize("audio_format", FORMATS)
def test_encoders_in_several_threads_do_not_disturb_each_other(audio_format: AudioFormat) -> None:
    def encode_one(amplitude: float) -> bytes:
        return encode_frames(audio_format, speech() * np.float32(amplitude), complete=True)

    amplitudes = np.linspace(0.1, 1.5, 12).tolist()
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(encode_one, amplitudes)) == [encode_one(amplitude) for amplitude in amplitudes]


@pytest.mark.parametrize("audio_format", FORMATS)
def test_memory_stays_flat(audio_format: AudioFormat) -> None:
    """Encoders grow by a page or none, and a heap of another shape by 90 KB once. No format makes less than 380 KB."""
    program = [sys.executable, "-m", "tests.server.encoder_growth", audio_format]
    encoded, grown = map(int, subprocess.run(program, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.split())
    assert encoded > 350_000
    assert grown < 256 * 1024


@pytest.mark.parametrize("audio_format", FORMATS)
def test_an_abandoned_stream_is_forgotten(audio_format: AudioFormat) -> None:
    encoder = make_encoder(audio_format, SAMPLE_RATE)
    encoder.encode(tone(0))
    del encoder
    gc.collect()  # pytest turns what is raised while it is collected into a failure


@pytest.mark.parametrize("audio_format", FORMATS)
def test_a_base_installation_writes_all_but_opus_and_aac(
    audio_format: AudioFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    if audio_format not in ("opus", "aac"):
        assert make_encoder(audio_format, SAMPLE_RATE).encode(tone(0)) or audio_format == "flac"
        return
    with pytest.raises(MissingCodecError, match=r"pip install 'qwen3-tts-edge\[formats\]'.*mp3, flac, wav, pcm"):
        make_encoder(audio_format, SAMPLE_RATE)


@pytest.mark.parametrize(
    ("audio_format", "content_type"),
    [
        ("mp3", "audio/mpeg"),
        ("opus", "audio/ogg"),
        ("aac", "audio/aac"),
        ("flac", "audio/flac"),
        ("wav", "audio/wav"),
        ("pcm", "audio/pcm"),
    ],
)
def test_each_format_has_its_media_type(audio_format: AudioFormat, content_type: str) -> None:
    assert make_encoder(audio_format, SAMPLE_RATE).content_type == CONTENT_TYPES[audio_format] == content_type
