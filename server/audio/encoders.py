"""Incremental encoders: float32 samples in, bytes of the file so far out."""

from __future__ import annotations

import struct
from typing import Literal, Protocol, get_args

import lameenc
import numpy as np
from numpy.typing import NDArray

from server.audio.pcm import to_s16le

AudioFormat = Literal["mp3", "wav", "pcm"]
FORMATS: tuple[str, ...] = get_args(AudioFormat)

MP3_KILOBITS = 96
"""A second, constant, so that a player can tell the time from the bytes; speech in 24 kHz mono needs no more."""

_MP3_QUALITY = 2
_WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_UNKNOWN_SIZE = 0xFFFFFFFF


class Encoder(Protocol):
    """One file being written from its start to its end."""

    content_type: str

    def encode(self, samples: NDArray[np.float32]) -> bytes:
        """The bytes that float32 samples `[n]` add; may be none yet."""

    def finish(self) -> bytes:
        """The last bytes."""

    def seal(self, body: bytearray) -> None:
        """Complete, in place, a body that holds all the bytes: what could not be known at its start."""


class PcmEncoder:
    """Bare samples: signed 16-bit little-endian, mono."""

    content_type = "audio/pcm"

    def encode(self, samples: NDArray[np.float32]) -> bytes:
        return to_s16le(samples)

    def finish(self) -> bytes:
        return b""

    def seal(self, body: bytearray) -> None:
        """Bare samples need no completing."""


class WavEncoder:
    """WAV of 16-bit mono; sizes read 0xFFFFFFFF ("until the end") until the body is sealed."""

    content_type = "audio/wav"

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._started = False

    def _header(self, riff_size: int, data_size: int) -> bytes:
        rate = self._sample_rate
        return _WAV_HEADER.pack(
            b"RIFF", riff_size, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", data_size
        )

    def _opening(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return self._header(_UNKNOWN_SIZE, _UNKNOWN_SIZE)

    def encode(self, samples: NDArray[np.float32]) -> bytes:
        return self._opening() + to_s16le(samples)

    def finish(self) -> bytes:
        return b""

    def seal(self, body: bytearray) -> None:
        body[: _WAV_HEADER.size] = self._header(len(body) - 8, len(body) - _WAV_HEADER.size)


class Mp3Encoder:
    """One continuous MP3 stream, mono, at the sample rate it is given."""

    content_type = "audio/mpeg"

    def __init__(self, sample_rate: int) -> None:
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_channels(1)
        self._lame.set_in_sample_rate(sample_rate)
        self._lame.set_out_sample_rate(sample_rate)
        self._lame.set_bit_rate(MP3_KILOBITS)
        self._lame.set_quality(_MP3_QUALITY)

    def encode(self, samples: NDArray[np.float32]) -> bytes:
        return bytes(self._lame.encode(to_s16le(samples)))

    def finish(self) -> bytes:
        return bytes(self._lame.flush())

    def seal(self, body: bytearray) -> None:
        """Frames of constant size need no completing."""


def make_encoder(audio_format: AudioFormat, sample_rate: int) -> Encoder:
    """A fresh encoder for mono audio at `sample_rate` Hz."""
    if audio_format == "mp3":
        return Mp3Encoder(sample_rate)
    return WavEncoder(sample_rate) if audio_format == "wav" else PcmEncoder()
