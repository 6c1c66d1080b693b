"""Encoders of all formats: they take float32 samples as they are made, and return the bytes that they add to a file."""

from __future__ import annotations

from typing import Literal

import lameenc
import numpy as np
import soundfile

from server.audio.formats import AudioFormat, Encoder
from server.audio.libav import AacEncoder, OpusEncoder
from server.audio.pcm import Samples, to_s16le
from server.audio.sink import Sink

MP3_KILOBITS = 96
"""Kilobits a second; constant, so that a player can tell the time from the bytes. Speech at 24 kHz needs no more."""

_MP3_QUALITY = 2
MARK = (
    "Synthetic speech, made by a machine (qwen3-tts-edge); "
    "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
)
"""What a file's metadata says, with IPTC's word for it (https://cv.iptc.org/newscodes/digitalsourcetype). Bare samples
and AAC in ADTS have no place for it."""

_UNKNOWN_SIZE = b"\xff\xff\xff\xff"
"""The size in a WAV header that means that the file goes on until its end."""


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


class SoundfileEncoder(Encoder):
    """Writes a WAV or FLAC file of 16 bits, mono, by libsndfile.

    Until it is completed, a WAV file has sizes of 0xFFFFFFFF ("until the end"), and a FLAC file has a length of 0
    ("unknown", RFC 9639, section 8.2). FLAC comes in blocks of 4096 samples.
    """

    def __init__(self, audio_format: Literal["wav", "flac"], sample_rate: int, mark: str = "") -> None:
        self.content_type = f"audio/{audio_format}"
        self._is_wav = audio_format == "wav"
        self._begun = False
        self._sink = Sink()
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
