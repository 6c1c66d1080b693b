"""PCM and the encoders, checked by decoding them with another library."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from server.audio.encoders import FORMATS, AudioFormat, make_encoder
from server.audio.pcm import to_s16le
from tests.server.fakes import SAMPLE_RATE, tone

FRAMES = 25


def speech() -> NDArray[np.float32]:
    return np.concatenate([tone(frame) for frame in range(FRAMES)])


def encode(audio_format: AudioFormat, chunk: int, *, seal: bool) -> bytes:
    encoder = make_encoder(audio_format, SAMPLE_RATE)
    samples = speech()
    body = bytearray()
    for start in range(0, len(samples), chunk):
        body += encoder.encode(samples[start : start + chunk])
    body += encoder.finish()
    if seal:
        encoder.seal(body)
    return bytes(body)


def test_samples_are_scaled_rounded_and_clipped() -> None:
    samples = np.array([0, 1, -1, 2, -2, 0.5, 0.6 / 32767], np.float32)
    assert np.frombuffer(to_s16le(samples), "<i2").tolist() == [0, 32767, -32767, 32767, -32767, 16384, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_no_audio(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        to_s16le(np.array([0, bad], np.float32))


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("chunk", [1920, 777, 100_000])
def test_chunks_make_no_difference(audio_format: AudioFormat, chunk: int) -> None:
    assert encode(audio_format, chunk, seal=True) == encode(audio_format, len(speech()), seal=True)


def test_pcm_is_the_samples() -> None:
    assert encode("pcm", 1920, seal=True) == encode("pcm", 1920, seal=False) == to_s16le(speech())


def test_a_sealed_wav_has_its_sizes() -> None:
    body = encode("wav", 1920, seal=True)
    assert struct.unpack_from("<4sI4s", body) == (b"RIFF", len(body) - 8, b"WAVE")
    assert struct.unpack_from("<4sI", body, 36) == (b"data", len(body) - 44)
    samples, rate = soundfile.read(io.BytesIO(body), dtype="int16")
    assert rate == SAMPLE_RATE
    assert samples.tobytes() == to_s16le(speech())


def test_a_streamed_wav_says_until_the_end() -> None:
    body = encode("wav", 1920, seal=False)
    assert struct.unpack_from("<I", body, 4) == struct.unpack_from("<I", body, 40) == (0xFFFFFFFF,)
    assert body[44:] == to_s16le(speech())


def test_mp3_is_one_stream_at_our_rate() -> None:
    with soundfile.SoundFile(io.BytesIO(encode("mp3", 1920, seal=True))) as file:
        assert (file.samplerate, file.channels, file.format) == (SAMPLE_RATE, 1, "MP3")
        decoded = file.read(dtype="float32")
    assert 0 <= len(decoded) - len(speech()) < 4 * 1152
    spectrum = np.abs(np.fft.rfft(decoded[4800:28800] * np.hanning(24000)))
    assert np.argmax(spectrum) == 440
    assert np.abs(decoded).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("audio_format", "content_type"), [("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("pcm", "audio/pcm")]
)
def test_content_types(audio_format: AudioFormat, content_type: str) -> None:
    assert make_encoder(audio_format, SAMPLE_RATE).content_type == content_type
