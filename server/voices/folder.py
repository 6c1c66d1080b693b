"""The folder of the cloned voices that are kept, with a file of each.

A file is written whole or not at all. Files that come and go are noticed, so that a folder can be filled by hand, and
by several servers.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from server import log
from server.errors import NotYourVoiceError, TooManyVoicesError, UnknownVoiceError, VoiceExistsError
from server.leftovers import UNFINISHED, remove_leftovers
from server.voices.saved import (
    MAX_NAME_CHARS,
    MAX_VOICE_BYTES,
    NAME,
    SUFFIX,
    SavedVoice,
    VoiceFileError,
    read_voice,
    write_voice,
)

_UNFINISHED = re.compile(rf"\..+{re.escape(SUFFIX)}\.[a-z0-9_]{{8}}{re.escape(UNFINISHED)}")
"""Names of files that have not got their own name yet. A part is one of `tempfile`, as processes in containers that
share a folder may have the same number."""
_WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_UNFINISHED_SECONDS = 600.0
"""A file that cannot be read and was written to so lately may be one that is still being copied: the folder's time does
not tell when that has ended."""
_LOOKED_SECONDS = 0.5
"""For so long what `VoiceFolder.look` has found is what there is."""
_UNSETTLED_SECONDS = 2.0
"""A folder that changed so lately is read again even if its time is the same, since clocks of file systems are coarse.
"""


class VoiceFolder:
    """The voices of a folder, which may change at any time.

    Args:
        path: the folder; None keeps no voices.
        most: of all voices.
        most_of_one: of those of one owner, and of those without an owner.
    """

    def __init__(self, path: Path | None, most: int = 1000, most_of_one: int = 100) -> None:
        if path is not None:
            remove_leftovers(path, _UNFINISHED)
        self._path, self._most, self._most_of_one = path, most, most_of_one
        self._is_reserved: Callable[[str], bool] = lambda name: False
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._files: dict[str, tuple[tuple[int, ...], SavedVoice | None]] = {}
        """By a file's name: what it was when it was read, and its voice, if it has one."""
        self._voices: Mapping[str, SavedVoice] = {}
        """By name in lower case."""
        self._looked = -math.inf
        """When `look` has found what there is, by `time.monotonic`."""
        self.changes = 0
        """How often something else was found there than before."""

    @property
    def keeps(self) -> bool:
        """Whether there is a folder."""
        return self._path is not None

    def reserve(self, is_reserved: Callable[[str], bool]) -> None:
        """Leave out voices whose names mean others, before any voice is asked for; files of such names are told."""
        self._is_reserved = is_reserved

    async def look(self) -> None:
        """Read in a thread what has changed; what is asked for right afterwards waits for no file.

        To read 200 files anew takes 20 ms and more, and to see that none of so many has changed 2 ms, which is done
        each time while the folder changes.
        """
        if self._path is None:
            return
        try:
            settled = self._path.stat()
        except OSError:
            settled = None
        if settled is None or _state(settled) != self._seen:
            await asyncio.to_thread(self._read_again)
        self._looked = time.monotonic()

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
            VoiceExistsError: there is one of this name, whosever it is, or the name is reserved.
            TooManyVoicesError: there are as many as there may be.
        """
        if self._is_reserved(name):
            raise VoiceExistsError(f"{name} is a voice of the server itself; choose another name", param="name")
        self._refresh()
        if name.lower() in self._voices:
            raise _taken(name)
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
            self._read_again()
            self.check(voice.name, voice.facts.owner)
            _write_new(self._path / f"{voice.name}{SUFFIX}", content, voice.name)
            self._seen = None
        self._read_again()

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
        with self._lock:  # else the name might be another voice's by the time that its file is removed
            self._read_again()
            voice = self._voices.get(name.strip().lower())
            if voice is None or not (by_operator or voice.visible(caller)):
                raise UnknownVoiceError(f"there is no voice {name[:MAX_NAME_CHARS]} that was uploaded", param="voice")
            if not by_operator and voice.facts.owner != caller:
                raise NotYourVoiceError(
                    f"the voice {voice.name} belongs to another key, or to everybody", param="voice"
                )
            assert self._path is not None
            (self._path / f"{voice.name}{SUFFIX}").unlink(missing_ok=True)
            self._seen = None
        self._read_again()

    def _refresh(self) -> None:
        """Read what has changed in the folder since it was read last, unless `look` has just done so."""
        if time.monotonic() - self._looked > _LOOKED_SECONDS:
            self._read_again()

    def _read_again(self) -> None:
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
            self.changes += bool(self._files)
            self._seen, self._files, self._voices = None, {}, {}
            return
        now = _state(found)
        if now == self._seen:
            return
        files = {}
        for path in sorted(folder.glob(f"[!.]*{SUFFIX}"))[: 2 * self._most]:
            state: tuple[int, ...] = ()
            try:
                about = path.stat()
                state = (about.st_mtime_ns, about.st_ino, about.st_size)
                known = self._files.get(path.name)
                files[path.name] = known if known and known[0] == state else (state, self._of_file(path))
            except FileNotFoundError:
                continue
            except (VoiceFileError, OSError) as error:
                log.event("voice_left_out", level=logging.ERROR, file=path.name, reason=error)
                files[path.name] = (state, None)
        self.changes += files != self._files
        self._files = files
        self._voices = {voice.name.lower(): voice for _, voice in files.values() if voice is not None}
        clock = time.time()
        unread = [state[0] / 1e9 for state, voice in files.values() if state and voice is None]
        settled = clock - found.st_mtime > _UNSETTLED_SECONDS and clock - max(unread, default=0) > _UNFINISHED_SECONDS
        self._seen = now if settled else None

    def _of_file(self, path: Path) -> SavedVoice:
        """Read a file whose voice is not left out."""
        voice = read_voice(path)
        if self._is_reserved(voice.name):
            raise VoiceFileError(f"{voice.name} is a voice of the server itself, which goes before it")
        return voice


def _state(folder: os.stat_result) -> tuple[int, int]:
    return folder.st_mtime_ns, folder.st_ino


def _write_new(path: Path, content: bytes, name: str) -> None:
    """Write a file that is not there yet, whole or not at all."""
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    temporary = Path(made)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        _place(temporary, path)
    except FileExistsError:
        raise _taken(name) from None
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
