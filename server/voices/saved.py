"""Cloned voices that are kept: a folder with a file of each, `NAME.safetensors`.

A file holds what a Base checkpoint's encoders have made of a recording, and not the recording itself: the speaker
embedding, the codec codes and the text are all that a model of the same sizes needs to speak with the voice. A file is
written whole or not at all. Files that come and go are noticed, so that a folder can be filled by hand, and by several
servers. A voice belongs to the key that made it, of which a digest is kept; one without an owner is everybody's.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from server import log
from server.engine.reference import Reference
from server.errors import NotYourVoiceError, TooManyVoicesError, UnknownVoiceError, VoiceExistsError
from server.manifest import Manifest

SUFFIX = ".safetensors"
MAX_VOICE_BYTES = 256_000
"""Of a file. A minute of codes takes 24 KB, a speaker embedding 8."""
MAX_NAME_CHARS = 64
MAX_TEXT_CHARS = 4000
MAX_DESCRIPTION_CHARS = 200
NAME = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,{MAX_NAME_CHARS - 2}}}[A-Za-z0-9_-])?")
"""No part of a path, no sign of a formula, not hidden, and no dot at its end, which Windows drops."""
NAMES = f"letters, digits, '.', '_' and '-', {MAX_NAME_CHARS} at most, a letter or digit first and no '.' last"

_META = "voice"
_LENGTH = 8
"""Bytes in which a file says how long its header is, https://huggingface.co/docs/safetensors."""
_SPEAKER, _CODES = "speaker", "codes"
_WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_UNFINISHED_SECONDS = 600.0
"""A file that cannot be read and was written to so lately may be one that is still being copied: the folder's time does
not tell when that has ended."""
_UNSETTLED_SECONDS = 2.0
"""A folder that changed so lately is read again even if its time is the same, since clocks of file systems are coarse.
"""


class Sizes(BaseModel):
    """What a model must have to speak with a voice."""

    model_config = ConfigDict(frozen=True)

    hidden: Annotated[int, Field(gt=0)]
    """Of the talker."""
    groups: Annotated[int, Field(gt=0)]
    """Codes of a codec frame."""
    codebook: Annotated[int, Field(gt=0)]
    """Entries of a codebook."""

    @classmethod
    def of(cls, manifest: Manifest) -> Sizes:
        """The sizes of a model."""
        codec = manifest.sizes.codec
        return cls(hidden=manifest.sizes.talker.hidden_size, groups=codec.num_quantizers, codebook=codec.codebook_size)


class Facts(BaseModel):
    """What is known of a voice beside its tensors; it is a file's metadata."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION_CHARS)] = ""
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | None = None
    """What is said in the recording; None where only the speaker embedding is used."""
    created: Annotated[int, Field(ge=0)]
    """Unix seconds."""
    seconds: Annotated[float, Field(ge=0)] = 0.0
    """Of the recording; 0 where there was none."""
    model: str
    """Id of the model that encoded it."""
    sizes: Sizes
    owner: str | None = None
    """Digest of the key that made it."""
    shared: bool = False
    """Whether others may speak with it."""
    consent: str = ""
    """What was said of the speaker's agreement."""
    designed: bool = False
    """Whether a VoiceDesign model made it up, so that nobody's voice was recorded."""
    notes: tuple[str, ...] = ()
    """What is wrong with the recording."""


@dataclass(frozen=True, eq=False)
class SavedVoice:
    """A voice that is kept."""

    facts: Facts
    reference: Reference

    @property
    def name(self) -> str:
        """What a request's `voice` may be."""
        return self.facts.name

    def visible(self, caller: str | None) -> bool:
        """Whether who asks, by the digest of a key, may speak with it."""
        return self.facts.owner is None or self.facts.shared or self.facts.owner == caller

    def fits(self, manifest: Manifest) -> bool:
        """Whether a model can speak with it."""
        return manifest.clones and Sizes.of(manifest) == self.facts.sizes


class VoiceFileError(ValueError):
    """A file holds no voice; the message says why."""


def write_voice(voice: SavedVoice) -> bytes:
    """The content of a voice's file."""
    reference = voice.reference
    tensors: dict[str, NDArray] = {_SPEAKER: np.ascontiguousarray(reference.speaker, np.float32)}
    if reference.codes is not None:
        tensors[_CODES] = np.ascontiguousarray(reference.codes, np.int32)
    return save(tensors, {_META: voice.facts.model_dump_json()})


def read_voice(path: Path) -> SavedVoice:
    """Read a voice's file.

    Raises:
        VoiceFileError: it is no such file, or a damaged one.
        OSError: it cannot be read.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_VOICE_BYTES:
        raise VoiceFileError(f"it is no file of at most {MAX_VOICE_BYTES} bytes")
    try:
        # Read, and not mapped: a mapped file that is cut off in the meantime would end the process.
        with path.open("rb") as stream:
            content = stream.read(MAX_VOICE_BYTES)
        tensors = load(content)
        header = json.loads(content[_LENGTH : _LENGTH + int.from_bytes(content[:_LENGTH], "little")])
        facts = Facts.model_validate_json(header["__metadata__"][_META])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise VoiceFileError(f"it is no file of a voice ({type(error).__name__})") from None
    speaker, codes = tensors.get(_SPEAKER), tensors.get(_CODES)
    sizes = facts.sizes
    if speaker is None or speaker.dtype != np.float32 or speaker.shape != (sizes.hidden,):
        raise VoiceFileError("its speaker embedding does not fit")
    if not np.isfinite(speaker).all():
        raise VoiceFileError("its speaker embedding is not finite")
    if (codes is None) != (facts.text is None):
        raise VoiceFileError("it has codes without a text, or a text without codes")
    if codes is not None:
        if codes.dtype != np.int32 or codes.ndim != 2 or codes.shape[1] != sizes.groups or not len(codes):
            raise VoiceFileError("its codes do not fit")
        if codes.min() < 0 or codes.max() >= sizes.codebook:
            raise VoiceFileError("its codes are out of range")
    if path.name != facts.name + SUFFIX:
        raise VoiceFileError(f"its voice is called {facts.name}")
    return SavedVoice(facts, Reference(speaker, None if codes is None else codes.astype(np.int64), facts.text))


class VoiceFolder:
    """The voices of a folder, which may change at any time.

    Args:
        path: the folder; None keeps no voices.
        most: of all voices.
        most_of_one: of those of one owner, and of those without an owner.
    """

    def __init__(self, path: Path | None, most: int = 1000, most_of_one: int = 100) -> None:
        self._path, self._most, self._most_of_one = path, most, most_of_one
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._files: dict[str, tuple[tuple[int, ...], SavedVoice | None]] = {}
        """By a file's name: what it was when it was read, and its voice, if it has one."""
        self._voices: Mapping[str, SavedVoice] = {}
        """By name in lower case."""

    @property
    def keeps(self) -> bool:
        """Whether there is a folder."""
        return self._path is not None

    def voices(self, caller: str | None) -> list[SavedVoice]:
        """The voices that somebody may speak with, by name."""
        return [voice for voice in self.all() if voice.visible(caller)]

    def all(self) -> list[SavedVoice]:
        """Every voice, by name, whosever it is."""
        self._refresh()
        return [voice for _, voice in sorted(self._voices.items())]

    def find(self, name: str, caller: str | None) -> SavedVoice | None:
        """The voice of this name, in any case, if there is one that somebody may speak with."""
        if not NAME.fullmatch(name.strip()):
            return None
        self._refresh()
        voice = self._voices.get(name.strip().lower())
        return voice if voice is not None and voice.visible(caller) else None

    def check(self, name: str, owner: str | None) -> None:
        """See that a voice of this name may be added; it costs nothing.

        Raises:
            VoiceExistsError: there is one of this name, whosever it is.
            TooManyVoicesError: there are as many as there may be.
        """
        self._refresh()
        if name.lower() in self._voices:
            raise VoiceExistsError(
                f"there is a voice {name} already; delete it first or choose another name", param="name"
            )
        if len(self._voices) >= self._most:
            raise TooManyVoicesError(f"there are {self._most} voices, as many as are kept here; delete one first")
        if sum(voice.facts.owner == owner for voice in self._voices.values()) >= self._most_of_one:
            whose = "without an owner" if owner is None else "of this key"
            raise TooManyVoicesError(
                f"there are {self._most_of_one} voices {whose}, as many as are kept here; delete one first"
            )

    def add(self, voice: SavedVoice) -> None:
        """Keep a voice; it writes to the disk, so that it has to be called in a thread.

        Raises:
            VoiceExistsError, TooManyVoicesError: as for `check`.
            OSError: the file cannot be written.
            ValueError: the voice is too large for a file.
        """
        content = write_voice(voice)
        if len(content) > MAX_VOICE_BYTES:
            raise ValueError("the voice is too large to be kept")
        assert self._path is not None
        with self._lock:
            self.check(voice.name, voice.facts.owner)
            _write_new(self._path / f"{voice.name}{SUFFIX}", content, voice.name)
            self._seen = None
        self._refresh()

    def remove(self, name: str, caller: str | None, *, by_operator: bool = False) -> None:
        """Delete a voice.

        Args:
            name: of the voice.
            caller: who asks, by the digest of a key.
            by_operator: whether it may be anybody's.

        Raises:
            UnknownVoiceError: there is none that the caller knows of.
            NotYourVoiceError: it is not the caller's.
            OSError: the file cannot be removed.
        """
        self._refresh()
        voice = self._voices.get(name.strip().lower())
        if voice is None or not (by_operator or voice.visible(caller)):
            raise UnknownVoiceError(f"there is no voice {name[:MAX_NAME_CHARS]} that was uploaded", param="voice")
        if not by_operator and voice.facts.owner != caller:
            raise NotYourVoiceError(f"the voice {voice.name} belongs to another key, or to everybody", param="voice")
        assert self._path is not None
        with self._lock:
            (self._path / f"{voice.name}{SUFFIX}").unlink(missing_ok=True)
            self._seen = None
        self._refresh()

    def _refresh(self) -> None:
        """Read what has changed in the folder since it was read last."""
        if self._path is not None:
            with self._reading:  # else a slow thread might put back what it has found before another one
                self._read(self._path)

    def _read(self, folder: Path) -> None:
        try:
            found = folder.stat()
        except OSError as error:
            if self._voices:
                log.event("voices_unreadable", level=logging.ERROR, reason=error.strerror)
            self._seen, self._files, self._voices = None, {}, {}
            return
        now = (found.st_mtime_ns, found.st_ino)
        if now == self._seen:
            return
        files = {}
        for path in sorted(folder.glob(f"[!.]*{SUFFIX}"))[: 2 * self._most]:
            state: tuple[int, ...] = ()
            try:
                about = path.stat()
                state = (about.st_mtime_ns, about.st_ino, about.st_size)
                known = self._files.get(path.name)
                files[path.name] = known if known and known[0] == state else (state, read_voice(path))
            except FileNotFoundError:
                continue
            except (VoiceFileError, OSError) as error:
                log.event("voice_unreadable", level=logging.ERROR, file=path.name, reason=error)
                files[path.name] = (state, None)
        self._files = files
        self._voices = {voice.name.lower(): voice for _, voice in files.values() if voice is not None}
        clock = time.time()
        unread = [state[0] / 1e9 for state, voice in files.values() if state and voice is None]
        settled = clock - found.st_mtime > _UNSETTLED_SECONDS and clock - max(unread, default=0) > _UNFINISHED_SECONDS
        self._seen = now if settled else None


def _write_new(path: Path, content: bytes, name: str) -> None:
    """Write a file that is not there yet, whole or not at all."""
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(made)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        _place(temporary, path)
    except FileExistsError:
        raise VoiceExistsError(
            f"there is a voice {name} already; delete it first or choose another name", param="name"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _place(temporary: Path, path: Path) -> None:
    """Give a file its name, unless another one has it.

    Raises:
        FileExistsError: another one has it.
    """
    if sys.platform == "win32":
        temporary.rename(path)  # fails there if the file exists
        return
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _WITHOUT_LINKS:
            raise
        if path.exists():
            raise FileExistsError(error.errno, str(path)) from None
        temporary.rename(path)


def _taken(name: str) -> VoiceExistsError:
    return VoiceExistsError(f"there is a voice {name} already; delete it first or choose another name", param="name")
