"""Incremental encoders: float32 samples in, bytes of the file so far out."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Literal, Protocol, cast, get_args

import av
import lameenc
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray

from server.audio.pcm import to_s16le

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[str, ...] = get_args(AudioFormat)

MP3_KILOBITS = 96
"""A second, constant, so that a player can tell the time from the bytes; speech in 24 kHz mono needs no more."""

_MP3_QUALITY = 2


class Encoder(Protocol):
    """One file being written from its start to its end."""

    content_type: str

    def encode(self, samples: NDArray[np.float32]) -> bytes:
        """The bytes that float32 samples `[n]` add; may be none yet."""

    def finish(self) -> bytes:
        """The last bytes."""

    def seal(self, body: bytearray) -> None:
        """Complete, in place, a body that holds all the bytes: what could not be known at its start."""

    def close(self) -> None:
        """Let go of what encoding takes, wherever it is; harmless after the end."""


class PcmEncoder:
    """Bare samples: signed 16-bit little-endian, mono."""

    content_type = "audio/pcm"

    def encode(self, samples: NDArray[np.float32]) -> bytes:
        return to_s16le(samples)

    def finish(self) -> bytes:
        return b""

    def seal(self, body: bytearray) -> None:
        """Bare samples need no completing."""

    def close(self) -> None:
        """There is nothing."""


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

    def close(self) -> None:
        """LAME's 0.5 MB go with this object."""


@dataclass(frozen=True)
class _Recipe:
    """How libav writes one format; rates and sizes are meant for speech in 24 kHz mono."""

    content_type: str
    container: str
    codec: str
    codec_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)


_RECIPES = {
    # RFC 7845 registers Ogg Opus as audio/ogg; audio/opus means RTP packets, and Firefox plays no file of that type.
    # A page holds 80 ms, one codec frame: the muxer's own second would be heard as delay, a page a packet is 11 kb/s.
    "opus": _Recipe("audio/ogg", "ogg", "libopus", {"b": "48000"}, {"page_duration": "80000"}),
    # ADTS cannot say that its first 1024 samples are the encoder's delay: players play them, as silence.
    "aac": _Recipe("audio/aac", "adts", "aac", {"b": "64000"}),
    # 40 ms a block, where libsndfile would wait for 4096 samples, and none of the 8 KiB that libav pads headers with.
    "flac": _Recipe("audio/flac", "flac", "flac", {"frame_size": "960"}, {"metadata_header_padding": "0"}),
    # Sizes are 0xFFFFFFFF ("until the end") until the body is sealed.
    "wav": _Recipe("audio/wav", "wav", "pcm_s16le"),
}


class _Sink:
    """The file libav writes: bytes are taken away as they come, and what is written over taken ones is kept apart."""

    def __init__(self) -> None:
        self.corrections: list[tuple[int, bytes]] = []
        self._fresh = bytearray()
        self._taken = 0
        self._position = 0

    def write(self, data: bytes) -> int:
        """Write at the position, as a file does."""
        offset = self._position - self._taken
        if offset < 0:
            self.corrections.append((self._position, bytes(data)))
        else:
            self._fresh[offset : offset + len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, as a file does."""
        end = self._taken + len(self._fresh)
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}[whence] + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def take(self) -> bytes:
        """The bytes since the last time."""
        taken, self._fresh = bytes(self._fresh), bytearray()
        self._taken += len(taken)
        return taken


class LibavEncoder:
    """One continuous stream of one of libav's codecs, mono."""

    def __init__(self, recipe: _Recipe, sample_rate: int) -> None:
        self.content_type = recipe.content_type
        self._recipe = recipe
        self._time_base = Fraction(1, sample_rate)
        self._samples = 0
        self._sink = _Sink()

    @cached_property
    def _opened(self) -> tuple[OutputContainer, av.AudioStream]:
        """Opened with the first samples: until then a request may wait for long, and FLAC takes 8 MB."""
        recipe = self._recipe
        # Bit-exact: no random serial number and no version of the library in the file.
        options = {"fflags": "+bitexact", **recipe.container_options}
        container = av.open(self._sink, "w", format=recipe.container, options=options)
        codec_options = {"flags": "+bitexact", **recipe.codec_options}
        stream = container.add_stream(
            recipe.codec, rate=self._time_base.denominator, layout="mono", options=codec_options
        )
        container.start_encoding()
        return container, cast(av.AudioStream, stream)

    def encode(self, samples: NDArray[np.float32]) -> bytes:
        container, stream = self._opened
        if samples.size:
            pcm = np.frombuffer(to_s16le(samples), "<i2")
            frame = av.AudioFrame.from_ndarray(pcm[np.newaxis], format="s16", layout="mono")
            frame.sample_rate = self._time_base.denominator
            frame.time_base = self._time_base
            frame.pts = self._samples
            self._samples += samples.size
            container.mux(stream.encode(frame))
        return self._sink.take()

    def finish(self) -> bytes:
        container, stream = self._opened
        opening = self._sink.take()
        container.mux(stream.encode(None))
        container.close()
        self.close()
        return opening + self._sink.take()

    def close(self) -> None:
        self.__dict__.pop("_opened", None)

    def seal(self, body: bytearray) -> None:
        for position, data in self._sink.corrections:
            body[position : position + len(data)] = data


def make_encoder(audio_format: AudioFormat, sample_rate: int) -> Encoder:
    """A fresh encoder for mono audio at `sample_rate` Hz.

    Encoders raise ValueError for samples that are not finite.
    """
    if audio_format == "mp3":
        return Mp3Encoder(sample_rate)
    if audio_format == "pcm":
        return PcmEncoder()
    return LibavEncoder(_RECIPES[audio_format], sample_rate)
