"""Reads the recording of a voice: a file of any common format becomes mono samples at the rate of the encoders.

Decoding is bounded while it goes on: a small file that would inflate to hours is refused once it exceeds the limit of
seconds. The resampling is that of the official `qwen-tts` package, which calls `librosa.resample`, so that the same
file gives the same codec codes. Pure: bytes go in, samples come out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import regex
import soundfile
import soxr

from server.audio.joins import QUIET
from server.audio.pcm import Samples

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

LEAST_SECONDS = 0.5
"""Of sound: less shows no voice, and the speaker encoder needs some frames."""
BEST_SECONDS = (3, 20)
"""Shorter recordings show little of a voice, and longer ones add nothing but time and memory."""
RATES = (8_000, 192_000)
"""Hz. Lower rates lack most of a voice, and higher ones are a wrong header."""
MOST_CHANNELS = 2
LONG_SILENCE_SECONDS = 0.5
TAIL_SECONDS = 0.5
"""Of silence that is put behind a recording. A model that goes on from the recording's last sound begins with an echo
of its tail; https://github.com/andimarafioti/faster-qwen3-tts appends as much by default."""
LOUDEST = 16.0
"""Of samples in floating point, whose full scale is 1: more is another scale, of which no encoder makes a voice."""
CLIPPED = 0.999
CLIPPED_SHARE = 0.0005
"""Of the samples at full scale, each with a neighbour that is too, from which a recording counts as clipped."""
CHARS_A_SECOND = (5.0, 25.0)
"""Of Latin letters, in which slow and fast speech lies: usual speech has about 15."""

_WIDE = regex.compile(r"\p{Han}|\p{Hangul}")
_KANA = regex.compile(r"\p{Hiragana}|\p{Katakana}")
_COUNTED = regex.compile(r"[\p{L}\p{M}\p{N}\p{P}\s]")
_BLANKS = regex.compile(r"\s+")
_RATES_OF_WRITING = 3.0, 2.0
"""Latin letters that take as long to say as a Han or Hangul character, a syllable, and as a Kana, half of one."""


class RecordingError(ValueError):
    """A file cannot be a reference; the message says why and what to do."""


@dataclass(frozen=True)
class Recording:
    """A recording of a voice."""

    samples: Samples
    """Mono, `[n]`, at the rate that was asked for."""
    seconds: float
    """Its length."""
    spoken_seconds: float
    """Its length without the silence at both ends."""
    notes: tuple[str, ...]
    """What is wrong with it and does not forbid its use, in ASCII."""


def read_recording(body: bytes, *, rate: int, most_seconds: float) -> Recording:
    """Decode, mix down to one channel, and resample; it takes up to seconds, so that it has to be called in a thread.

    Args:
        body: the file: WAV, FLAC, Ogg (Vorbis or Opus) or MP3; M4A, WebM and AAC where PyAV is installed.
        rate: of the samples that are wanted, in Hz.
        most_seconds: the longest recording.

    Raises:
        RecordingError: it is none of these, is damaged, too long, too short, silent, or not finite.
    """
    samples, own_rate = _decoded(body, most_seconds)
    return as_recording(samples, own_rate, rate=rate, most_seconds=most_seconds)


def as_recording(samples: Samples, own_rate: int, *, rate: int, most_seconds: float) -> Recording:
    """Judge samples `[n]` of a rate of their own, and resample them; the rest is as for `read_recording`."""
    if len(samples) > most_seconds * own_rate:
        raise RecordingError(f"the recording is longer than {most_seconds:g} s; cut it, 3 to 20 s are best")
    if not np.isfinite(samples).all():
        raise RecordingError("the recording has samples that are not finite numbers; save it as 16-bit PCM")
    if samples.size and (peak := float(np.abs(samples).max())) > LOUDEST:
        raise RecordingError(
            f"the recording has samples of up to {peak:.3g}, and full scale is 1; save it as 16-bit PCM"
        )
    loud = np.flatnonzero(np.abs(samples) >= QUIET)
    spoken = (int(loud[-1]) + 1 - int(loud[0])) / own_rate if loud.size else 0.0
    if spoken < LEAST_SECONDS:
        what = "is silent" if not loud.size else f"has only {spoken:.2f} s of sound"
        raise RecordingError(f"the recording {what}; send 3 to 20 s of one person who speaks")
    notes = tuple(_notes(samples, own_rate, int(loud[0]), int(loud[-1]) + 1))
    return Recording(resampled(samples, own_rate, rate), len(samples) / own_rate, spoken, notes)


def resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """Resample `[n]` as `librosa.resample` does by default: `[ceil(n * wanted / rate)]`."""
    if rate == wanted:
        return samples
    length = int(np.ceil(len(samples) * (float(wanted) / rate)))
    made = soxr.resample(samples, rate, wanted, quality="soxr_hq")[:length]
    return np.pad(made, (0, length - len(made))).astype(np.float32, copy=False)


def with_tail(samples: Samples, rate: int) -> Samples:
    """Samples `[n]` with the silence behind them that keeps a model from echoing the recording's end."""
    return np.concatenate((samples, np.zeros(round(TAIL_SECONDS * rate), np.float32)))


def text_notes(text: str, spoken_seconds: float) -> tuple[str, ...]:
    """Say, in ASCII, whether a text is too short or too long to be what is said in so many seconds."""
    said = _BLANKS.sub(" ", "".join(_COUNTED.findall(text))).strip()
    wide, kana = len(_WIDE.findall(said)), len(_KANA.findall(said))
    chars = len(said) - wide - kana + _RATES_OF_WRITING[0] * wide + _RATES_OF_WRITING[1] * kana
    pace = chars / spoken_seconds
    if CHARS_A_SECOND[0] <= pace <= CHARS_A_SECOND[1]:
        return ()
    much = "little" if pace < CHARS_A_SECOND[0] else "much"
    return (
        f"ref_text is {much} for {spoken_seconds:.1f} s of speech: it has to be every word that is said, and nothing "
        "else; otherwise the voice may babble, repeat itself or never end",
    )


def _notes(samples: Samples, rate: int, begin: int, end: int) -> Iterator[str]:
    before, after, spoken = begin / rate, (len(samples) - end) / rate, (end - begin) / rate
    if before > LONG_SILENCE_SECONDS:
        yield f"the recording begins with {before:.1f} s of silence; cut it off"
    if after > LONG_SILENCE_SECONDS:
        yield f"the recording ends with {after:.1f} s of silence; cut it off"
    full = np.abs(samples) >= CLIPPED
    if np.count_nonzero(full[1:] & full[:-1]) > CLIPPED_SHARE * len(samples):
        yield "the recording is clipped; record it again at a lower level"
    if not BEST_SECONDS[0] <= round(spoken) <= BEST_SECONDS[1]:
        yield f"the recording has {spoken:.1f} s of sound; 3 to 20 s are best"


def _decoded(body: bytes, most_seconds: float) -> tuple[Samples, int]:
    """Decode a file by what its first bytes say, since a name or a media type may lie.

    Returns:
        Mono samples, of which there are too many where the file is too long, and their rate.
    """
    if body[:4] in (b"RIFF", b"RF64", b"fLaC", b"OggS") or body[:3] == b"ID3" or _is_mp3(body):
        return _by_libsndfile(body, most_seconds)
    if body[4:8] == b"ftyp":
        return _by_libav(body, "mp4", most_seconds)
    if body[:4] == b"\x1a\x45\xdf\xa3":
        return _by_libav(body, "matroska", most_seconds)
    if body[:1] == b"\xff" and body[1:2] and body[1] & 0xF6 == 0xF0:
        return _by_libav(body, "aac", most_seconds)
    raise RecordingError("the recording is in no format that is known here; send WAV, FLAC, Ogg, MP3, M4A or WebM")


def _is_mp3(body: bytes) -> bool:
    """Whether a frame of MPEG audio begins here; layer 0 is AAC's."""
    return len(body) > 2 and body[0] == 0xFF and body[1] & 0xE0 == 0xE0 and body[1] & 0x06 != 0


def _check(rate: int, channels: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise RecordingError(f"the recording has {rate} samples a second; {RATES[0]} to {RATES[1]} are read")
    if not 1 <= channels <= MOST_CHANNELS:
        raise RecordingError(f"the recording has {channels} channels; 1 to {MOST_CHANNELS} are read")


def _by_libsndfile(body: bytes, most_seconds: float) -> tuple[Samples, int]:
    try:
        with soundfile.SoundFile(io.BytesIO(body)) as file:
            _check(file.samplerate, file.channels)
            # At once, and from a seek on, as the official package reads: in parts, an MP3 would become other samples.
            file.seek(0)
            samples = file.read(int(most_seconds * file.samplerate) + 1, dtype="float32", always_2d=True)
            return _mono(samples), file.samplerate
    except (soundfile.LibsndfileError, TypeError) as error:
        raise RecordingError(f"the recording cannot be read: {_reason(error)}") from None


def _by_libav(body: bytes, container: str, most_seconds: float) -> tuple[Samples, int]:
    try:
        import av  # an extra
    except ModuleNotFoundError:
        raise RecordingError(
            "M4A, WebM and AAC need the package PyAV, which is not installed here: "
            "pip install 'qwen3-tts-edge[formats]', or send WAV, FLAC, Ogg or MP3"
        ) from None
    parts: list[Samples] = []
    try:
        # PyAV 19, which needs Python 3.12, takes any bytes for a title; earlier ones have to be told to.
        lenient: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "ignore"}
        with av.open(io.BytesIO(body), "r", format=container, **lenient) as file:
            if not file.streams.audio:
                raise RecordingError("the recording has no sound")
            stream = file.streams.audio[0]
            codec = cast("AudioCodecContext | None", stream.codec_context)
            if codec is None:
                raise RecordingError("the recording is in a coding that cannot be read; send WAV, FLAC, Ogg or MP3")
            rate = codec.sample_rate or 0
            _check(rate, codec.channels)
            to_float = av.AudioResampler(format="fltp", layout=codec.layout, rate=rate)
            left = int(most_seconds * rate) + 1
            for frame in file.decode(stream):
                parts += (_mono(cast(Samples, part.to_ndarray()).T) for part in to_float.resample(frame))
                left -= frame.samples
                if left <= 0:
                    break
    except RecordingError:
        raise
    except (av.FFmpegError, ValueError, EOFError) as error:
        raise RecordingError(f"the recording cannot be read: {_reason(error)}") from None
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), rate


def _mono(block: Samples) -> Samples:
    """The mean of the channels, `[n, channels]` to `[n]`, as the official package has it."""
    return np.mean(block, axis=-1).astype(np.float32, copy=False) if block.shape[1] > 1 else block[:, 0]


def _reason(error: Exception) -> str:
    """What a library says of a file, in a few words of ASCII."""
    words = getattr(error, "error_string", None) or getattr(error, "strerror", None) or type(error).__name__
    return str(words).strip().rstrip(".").encode("ascii", "replace").decode()[:100]
