"""Encoders that take float32 samples as they are made, and return the bytes that they add to a file."""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import lameenc
import numpy as np
import soundfile

from server.audio.ogg import FIRST, LAST, Pages
from server.audio.pcm import Samples, to_s16le

if TYPE_CHECKING:
    from av import AudioCodecContext, AudioFrame, AudioStream, Packet
    from av.container import OutputContainer

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[str, ...] = get_args(AudioFormat)

MP3_KILOBITS = 96
"""Kilobits a second; constant, so that a player can tell the time from the bytes. Speech at 24 kHz needs no more."""

_MP3_QUALITY = 2
AAC_BITS, OPUS_BITS = 64_000, 48_000
"""Bits a second."""
OPUS_COMPLEXITY = 5
"""Of 0 to 10, libopus's own choice. From 7 on it takes three times as long, for noise that is no softer."""
OPUS_RATE = 48_000
"""In Hz, what Opus counts samples in, whatever it was given."""
OPUS_PACKETS = 3
"""Packets of a page, each of 20 ms: the first codec frame of 80 ms, of which joining holds back 5, makes a page and is
heard when it has been made. Pages cost 4 kilobits a second."""

MARK = (
    "Synthetic speech, made by a machine (qwen3-tts-edge); "
    "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
)
"""What a file's metadata says, with IPTC's word for it (https://cv.iptc.org/newscodes/digitalsourcetype). Bare samples
and AAC in ADTS have no place for it."""

_UNKNOWN_SIZE = b"\xff\xff\xff\xff"
"""The size in a WAV header that means that the file goes on until its end."""


class MissingCodecError(ValueError):
    """The library of a format is not installed; the message says how to install it."""


class Encoder(ABC):
    """Writes one file from its start to its end."""

    content_type: str
    """The file's media type."""

    @abstractmethod
    def encode(self, samples: Samples) -> bytes:
        """Return the bytes that samples `[n]` add to the file, which may be none yet."""

    @abstractmethod
    def finish(self) -> bytes:
        """Return the last bytes of the file."""

    def complete(self, body: bytearray) -> None:  # noqa: B027  # most formats need nothing
        """Write into the file's bytes what could not be known at its start, such as its length."""

    def close(self) -> None:  # noqa: B027  # most encoders go with their object
        """Free what encoding takes; it may be called before the end and after it."""


class PcmEncoder(Encoder):
    """Writes bare samples: signed 16-bit little-endian, mono."""

    content_type = "audio/pcm"

    def encode(self, samples: Samples) -> bytes:
        return to_s16le(samples)

    def finish(self) -> bytes:
        return b""


class Mp3Encoder(Encoder):
    """Writes one continuous MP3 stream, mono, at the sample rate that it is given; a mark is an ID3 tag before it."""

    content_type = "audio/mpeg"

    def __init__(self, sample_rate: int, mark: str = "") -> None:
        self._tag = _id3(mark) if mark else b""
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_channels(1)
        self._lame.set_in_sample_rate(sample_rate)
        self._lame.set_out_sample_rate(sample_rate)
        self._lame.set_bit_rate(MP3_KILOBITS)
        self._lame.set_quality(_MP3_QUALITY)

    def encode(self, samples: Samples) -> bytes:
        return self._tagged(bytes(self._lame.encode(to_s16le(samples))))

    def finish(self) -> bytes:
        return self._tagged(bytes(self._lame.flush()))

    def _tagged(self, frames: bytes) -> bytes:
        """Put the tag before the first frames; it does not come alone, since it is no sound."""
        if not frames:
            return b""
        tag, self._tag = self._tag, b""
        return tag + frames


def _id3(comment: str) -> bytes:
    """An ID3v2.3 tag with a comment in ASCII (https://id3.org/id3v2.3.0, sections 3.1 and 4.11)."""
    body = b"\0eng\0" + comment.encode("ascii")
    frame = b"COMM" + len(body).to_bytes(4, "big") + b"\0\0" + body
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + frame


class _Sink:
    """The file that a library writes. Its bytes are taken as they come; what is written over taken bytes is kept."""

    def __init__(self) -> None:
        self.corrections: list[tuple[int, bytes]] = []
        self.taken = 0
        """Number of bytes that have been taken."""
        self._fresh = bytearray()
        self._position = 0

    def write(self, data: bytes) -> int:
        """Write at the position, as a file does."""
        offset = self._position - self.taken
        if offset < 0:
            self.corrections.append((self._position, bytes(data)))
        else:
            self._fresh[offset : offset + len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, as a file does."""
        end = self.taken + len(self._fresh)
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: end}[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the position, as a file does."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Return nothing; soundfile asks for this method and does not call it."""
        return b""

    def complete(self, body: bytearray) -> None:
        """Write into the file's bytes what was written over them after they were taken."""
        for position, data in self.corrections:
            body[position : position + len(data)] = data

    def take(self) -> bytes:
        """Take the bytes that were written since the last call."""
        taken, self._fresh = bytes(self._fresh), bytearray()
        self.taken += len(taken)
        return taken


class SoundfileEncoder(Encoder):
    """Writes a WAV or FLAC file of 16 bits, mono, by libsndfile.

    Until it is completed, a WAV file has sizes of 0xFFFFFFFF ("until the end"), and a FLAC file has a length of 0
    ("unknown", RFC 9639, section 8.2). FLAC comes in blocks of 4096 samples.
    """

    def __init__(self, audio_format: Literal["wav", "flac"], sample_rate: int, mark: str = "") -> None:
        self.content_type = f"audio/{audio_format}"
        self._is_wav = audio_format == "wav"
        self._begun = False
        self._sink = _Sink()
        self._file = soundfile.SoundFile(
            self._sink, "w", samplerate=sample_rate, channels=1, format=audio_format.upper(), subtype="PCM_16"
        )
        if mark:
            self._file.comment = mark

    def encode(self, samples: Samples) -> bytes:
        if not samples.size:  # libsndfile writes the comment with the first samples
            return b""
        self._file.write(np.frombuffer(to_s16le(samples), "<i2"))
        self._begun = True
        return self._taken()

    def finish(self) -> bytes:
        opening = self._taken() if self._begun else b""
        self._file.close()
        return opening + self._sink.take()

    def _taken(self) -> bytes:
        if self._sink.taken or not self._is_wav:
            return self._sink.take()
        body = bytearray(self._sink.take())
        data = _chunk(body, b"data")
        body[4:8] = body[data + 4 : data + 8] = _UNKNOWN_SIZE
        return bytes(body)

    def complete(self, body: bytearray) -> None:
        self._sink.complete(body)


def _chunk(wav: bytearray, name: bytes) -> int:
    """Find where a chunk begins; each has a name, a size, and so many bytes, padded to an even number."""
    place = 12
    while wav[place : place + 4] != name:
        size = int.from_bytes(wav[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return place


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
        self._sink = _Sink()

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


def make_encoder(audio_format: AudioFormat, sample_rate: int, mark: str = "") -> Encoder:
    """Make an encoder of mono audio at `sample_rate` Hz, whose file says `mark` in its metadata, if it has any.

    Encoders raise ValueError for samples that are not finite.

    Raises:
        MissingCodecError: the library for this format is not installed.
    """
    match audio_format:
        case "mp3":
            return Mp3Encoder(sample_rate, mark)
        case "pcm":
            return PcmEncoder()
        case "wav" | "flac":
            return SoundfileEncoder(audio_format, sample_rate, mark)
        case "aac":
            return AacEncoder(sample_rate)
        case "opus":
            return OpusEncoder(sample_rate, mark)


CONTENT_TYPES: dict[AudioFormat, str] = {
    "mp3": Mp3Encoder.content_type,
    "pcm": PcmEncoder.content_type,
    "wav": "audio/wav",
    "flac": "audio/flac",
    "opus": OpusEncoder.content_type,
    "aac": AacEncoder.content_type,
}
WITHOUT_PYAV = tuple(name for name in FORMATS if name not in ("opus", "aac"))
"""The formats that need no extra package."""
