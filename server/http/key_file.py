"""The file of API keys: one `LABEL:SHA256` a line, the hash of each key in hexadecimal and never the key itself.

Blank lines and lines that begin with `#` are for people.

Keys are made here with 256 random bits, so that a plain hash cannot be turned back.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from server import log
from server.http.locked import locked

_KEY_BYTES = 32
_LABEL = re.compile(r"(?!key\d+$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_BOM = b"\xef\xbb\xbf"
_NEW_MODE = 0o600
_NOT_REPLACEABLE = (errno.EBUSY, errno.EXDEV, errno.EROFS, errno.EACCES, errno.EPERM)
"""A single file that is mounted into a container, or a folder that takes no new file."""


class KeyFileError(ValueError):
    """The file cannot be used as it is, or has not what was asked of it; the message is for the operator."""


def digest(key: str) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _lines(path: Path) -> list[str]:
    """The lines of a file, whatever they hold.

    Raises:
        KeyFileError: it is not there.
        OSError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise KeyFileError(f"{path} is not there; `qwen3-tts keys new LABEL` makes it") from None
    return content.removeprefix(_BOM).decode("utf-8", "surrogateescape").splitlines()


def _entry(line: str) -> tuple[str, bytes] | None:
    """Label and digest of a line; None if it has not both."""
    label, _, kept = (part.strip() for part in line.partition(":"))
    return (label, bytes.fromhex(kept)) if _LABEL.fullmatch(label) and _HASH.fullmatch(kept) else None


def read(path: Path) -> dict[str, bytes]:
    """The digests in a file, by label. Blank lines and those that begin with `#` say nothing.

    A line that cannot be read, or has a label that is there already, costs that line alone: an ERROR in the log names
    it and never shows it.

    Raises:
        KeyFileError: the file is not there, or has lines and none that can be read.
        OSError: it cannot be read.
    """
    keys: dict[str, bytes] = {}
    problems = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry = _entry(line)
        if entry is None:
            problems.append(f"line {number} is not LABEL:SHA256")
        elif entry[0] in keys:
            problems.append(f"line {number} has a label that is there already")
        else:
            keys[entry[0]] = entry[1]
    if problems and not keys:
        raise KeyFileError(f"{path}: {problems[0]}")
    for problem in problems:
        log.event("key_line_unreadable", level=logging.ERROR, file=path, reason=problem)
    return keys


def _write(path: Path, lines: Iterable[str]) -> None:
    """Replace the file by one of the same owner and mode, a new one readable by its owner only.

    Half a file is never there, but where it cannot be replaced: then it is written in place.
    """
    content = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    try:
        _replace(path, content)
    except OSError as error:
        if error.errno not in _NOT_REPLACEABLE or not path.exists():
            raise
        with path.open("r+b") as stream:
            stream.write(content)
            stream.truncate()
            stream.flush()
            os.fsync(stream.fileno())


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            if path.exists():
                _take_after(stream.fileno(), path.stat())
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _take_after(handle: int, old: os.stat_result) -> None:
    """Give an open file the owner and mode of another; Windows has neither."""
    if sys.platform != "win32":
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(handle, old.st_uid, old.st_gid)
        os.fchmod(handle, stat.S_IMODE(old.st_mode))


def add(path: Path, label: str) -> str:
    """Make a key, put its hash into the file (made where it is not there yet) and return it: it is kept nowhere.

    Raises:
        KeyFileError: the label cannot be one or is taken, or as for `read`.
        OSError: the file cannot be read or written.
    """
    if not _LABEL.fullmatch(label):
        raise KeyFileError(
            f"{label!r} cannot be a label: letters, digits, '.', '_' and '-', 64 at most; "
            "key1, key2, ... are the keys of KW_SECRET_API_KEY"
        )
    path = path.resolve()
    with locked(path):
        if path.exists() and label in read(path):
            raise KeyFileError(f"there is a key {label} already; revoke it first or choose another label")
        key = f"sk-{secrets.token_urlsafe(_KEY_BYTES)}"
        _write(path, [*(_lines(path) if path.exists() else ()), f"{label}:{digest(key).hex()}"])
    return key


def revoke(path: Path, label: str) -> None:
    """Take a key out of the file: every line that has its label.

    Raises:
        KeyFileError: it has no such key, or as for `read`.
        OSError: the file cannot be read or written.
    """
    path = path.resolve()
    if not path.exists():
        _lines(path)  # which says so
    with locked(path):
        keys = read(path)
        if keys.pop(label, None) is None:
            raise KeyFileError(f"there is no key {label}; there are {', '.join(keys) or 'none'}")
        _write(path, [line for line in _lines(path) if (_entry(line) or ("",))[0] != label])


class KeyFile:
    """The keys of a file that may change at any time.

    Raises:
        KeyFileError, OSError: as for `read`. Later on, a file that cannot be read holds no keys, and the log says why.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._signature()
        self._keys = read(path)

    def _signature(self) -> tuple[int, ...]:
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino, found.st_size

    def keys(self) -> Mapping[str, bytes]:
        """The digests by label, read again if the file has changed."""
        if (now := self._signature()) != self._seen:
            self._seen = now
            try:
                self._keys = read(self._path)
                log.event("keys_read", keys=len(self._keys))
            except (KeyFileError, OSError) as error:
                self._keys = {}
                log.event("keys_unreadable", level=logging.ERROR, reason=error)
        return self._keys
