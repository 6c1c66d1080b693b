"""Encoders that need PyAV: AAC and Opus."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from server.audio.formats import WITHOUT_PYAV, AudioFormat, Encoder, MissingCodecError
from server.audio.ogg import FIRST, LAST, Pages
from server.audio.pcm import Samples, to_s16le
from server.audio.sink import Sink

if TYPE_CHECKING:
    from av import AudioCodecContext, AudioFrame, AudioStream, Packet
    from av.container import OutputContainer

AAC_BITS, OPUS_BITS = 64_000, 48_000
"""Bits a second."""
OPUS_COMPLEXITY = 5
"""Of 0 to 10, libopus's own choice. From 7 on it takes three times as long, for noise that is no softer."""
OPUS_RATE = 48_000
"""In Hz, what Opus counts samples in, whatever it was given."""
OPUS_PACKETS = 3
"""Packets of a page, each of 20 ms: the first codec frame of 80 ms, of which joining holds back 5, makes a page and is
heard when it has been made. Pages cost 4 kilobits a second."""


class LibavEncoder(Encoder):
    """Encodes by one of libav's codecs, mono, by PyAV; bit-exact, so that the same samples make the same file.

    Raises:
        MissingCodecError: PyAV is not installed.
    """

    def __init__(self, audio_format: AudioFormat, sample_rate: int) -> None:
        try:
            import av  # noqa: F401  # an extra
        except ModuleNotFoundError as error:
            raise MissingCodecError(
                f"{audio_format} needs the package PyAV, which is not installed here: "
                f"pip install 'qwen3-tts-edge[formats]', or ask for {', '.join(WITHOUT_PYAV)}"
            ) from error
        self._rate = sample_rate
        self._samples = 0
        """How many have been encoded."""

    def _frame(self, samples: Samples) -> AudioFrame:
        """The next samples `[n]`, one at least, as the codec takes them."""
        import av

        frame = av.AudioFrame.from_ndarray(np.frombuffer(to_s16le(samples), "<i2")[np.newaxis], "s16", "mono")
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._samples
        self._samples += samples.size
        return frame


class AacEncoder(LibavEncoder):
    """Writes AAC in ADTS, which cannot say that its first 1024 samples are the encoder's delay: players play them."""

    content_type = "audio/aac"

    def __init__(self, sample_rate: int) -> None:
        super().__init__("aac", sample_rate)
        self._sink = Sink()

    @cached_property
    def _opened(self) -> tuple[OutputContainer, AudioStream]:
        """The container and its stream, opened with the first samples, since a request may wait long for them."""
        import av

        container = av.open(self._sink, "w", format="adts", options={"fflags": "+bitexact"})
        options = {"flags": "+bitexact", "b": str(AAC_BITS)}
        stream = container.add_stream("aac", rate=self._rate, layout="mono", options=options)
        container.start_encoding()
        return container, stream

    def encode(self, samples: Samples) -> bytes:
        container, stream = self._opened
        if samples.size:
            container.mux(stream.encode(self._frame(samples)))
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


class OpusEncoder(LibavEncoder):
    """Writes Opus in Ogg (RFC 7845), in pages of `OPUS_PACKETS`; the mark is a comment.

    RFC 7845 registers it as audio/ogg; audio/opus means RTP packets, and Firefox plays no file of that type.
    """

    content_type = "audio/ogg"

    def __init__(self, sample_rate: int, mark: str = "") -> None:
        super().__init__("opus", sample_rate)
        self._mark = mark
        self._pages = Pages()
        self._packets: list[bytes] = []
        """Those of the page that is not full yet."""
        self._position = 0
        """Behind the last page, in samples of 48 kHz, the encoder's delay among them."""
        self._head = b""
        """OpusHead, once its pages have been written."""

    @cached_property
    def _codec(self) -> AudioCodecContext:
        """The codec, opened with the first samples, since a request may wait long for them."""
        import av

        codec = av.CodecContext.create("libopus", "w")
        codec.sample_rate, codec.layout, codec.format = self._rate, "mono", "s16"
        codec.time_base = Fraction(1, self._rate)
        codec.options = {"flags": "+bitexact", "b": str(OPUS_BITS), "compression_level": str(OPUS_COMPLEXITY)}
        codec.open()
        return codec

    def encode(self, samples: Samples) -> bytes:
        return self._paged(self._codec.encode(self._frame(samples))) if samples.size else b""

    def finish(self) -> bytes:
        """Return the last pages; the very last one says where between its samples the sound ends."""
        pages = self._paged(self._codec.encode(None), left=1) + self._headers()
        if self._packets:
            delay = int.from_bytes(self._head[10:12], "little")
            pages += self._pages.page(self._packets, delay + self._samples * OPUS_RATE // self._rate, LAST)
        self.close()
        return pages

    def close(self) -> None:
        self.__dict__.pop("_codec", None)

    def _paged(self, packets: Iterable[Packet], left: int = 0) -> bytes:
        """The pages that are full once these packets have come, if at least so many packets are left behind them."""
        self._packets += map(bytes, packets)
        pages = b""
        while len(self._packets) >= OPUS_PACKETS + left:
            taken, self._packets = self._packets[:OPUS_PACKETS], self._packets[OPUS_PACKETS:]
            self._position += OPUS_PACKETS * self._codec.frame_size * OPUS_RATE // self._rate
            pages += self._headers() + self._pages.page(taken, self._position)
        return pages

    def _headers(self) -> bytes:
        """The pages that come before the sound, if they have not been written."""
        if self._head:
            return b""
        self._head = bytes(self._codec.extradata or b"")
        comment = f"comment={self._mark}".encode("ascii")
        comments = struct.pack("<II", 1, len(comment)) + comment if self._mark else struct.pack("<I", 0)
        tags = b"OpusTags" + struct.pack("<I", 0) + comments
        return self._pages.page([self._head], 0, FIRST) + self._pages.page([tags], 0)
