"""The formats of files that speech is written to, and what an encoder of one does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

from server.audio.pcm import Samples

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
FORMATS: tuple[str, ...] = get_args(AudioFormat)
WITHOUT_PYAV = tuple(name for name in FORMATS if name not in ("opus", "aac"))
"""The formats that need no extra package."""


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
