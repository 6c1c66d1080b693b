"""The file of API keys: a line for each key, `LABEL:SHA256`, with the key's hash in hexadecimal and never the key.

Blank lines and lines that begin with `#` are comments. Keys are made with 256 random bits, so that nobody can find a
key from its plain hash.
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
from server.http.file_lock import file_lock
from server.leftovers import UNFINISHED, remove_leftovers

_KEY_BYTES = 32
_LABEL = re.compile(r"(?!key\d+$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_BOM = b"\xef\xbb\xbf"
_NEW_MODE = 0o600
_NOT_REPLACEABLE = (errno.EBUSY, errno.EXDEV, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of a file that cannot be replaced: it is mounted into a container, or its folder takes no new file."""


class KeyFileError(ValueError):
    """The file cannot be used as it is, or lacks a key that was asked for; the message is for the operator."""


def digest(key: str) -> bytes:
    """Compute the SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _lines(path: Path) -> list[str]:
    """Read the lines of a file as they are.

    Raises:
        KeyFileError: the file does not exist.
        OSError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise KeyFileError(f"{path} is not there; `qwen3-tts keys new LABEL` makes it") from None
    return content.removeprefix(_BOM).decode("utf-8", "surrogateescape").splitlines()


def _entry(line: str) -> tuple[str, bytes] | None:
    """Read label and digest of a line; None if it does not have both."""
    label, _, kept = (part.strip() for part in line.partition(":"))
    return (label, bytes.fromhex(kept)) if _LABEL.fullmatch(label) and _HASH.fullmatch(kept) else None


def read(path: Path) -> dict[str, bytes]:
    """Read the digests in a file, by label.

    A line that cannot be read, or that repeats a label, is skipped: an ERROR in the log gives its number and never
    shows it.

    Raises:
        KeyFileError: the file does not exist, or none of its lines can be read.
        OSError: the file cannot be read.
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
    """Replace the file by one of the same owner and mode; only its owner can read a new file.

    A half-written file is never seen, except where the file cannot be replaced and is written in place.
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
    remove_leftovers(path.parent, re.compile(rf"{re.escape(f'.{path.name}.')}[a-z0-9_]{{8}}{re.escape(UNFINISHED)}"))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            if path.exists():
                _copy_owner_and_mode(stream.fileno(), path.stat())
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _copy_owner_and_mode(handle: int, old: os.stat_result) -> None:
    """Give an open file the owner and mode of another file; Windows has neither."""
    if sys.platform != "win32":
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(handle, old.st_uid, old.st_gid)
        os.fchmod(handle, stat.S_IMODE(old.st_mode))


def add(path: Path, label: str) -> str:
    """Make a key, add its hash to the file, and return the key, which is kept nowhere else; a missing file is made.

    Raises:
        KeyFileError: the label is malformed or taken, or as for `read`.
        OSError: the file cannot be read or written.
    """
    if not _LABEL.fullmatch(label):
        raise KeyFileError(
            f"{label!r} cannot be a label: letters, digits, '.', '_' and '-', 64 at most; "
            "key1, key2, ... are the keys of KW_SECRET_API_KEY"
        )
    path = path.resolve()
    with file_lock(path):
        if path.exists() and label in read(path):
            raise KeyFileError(f"there is a key {label} already; revoke it first or choose another label")
        key = f"sk-{secrets.token_urlsafe(_KEY_BYTES)}"
        _write(path, [*(_lines(path) if path.exists() else ()), f"{label}:{digest(key).hex()}"])
    return key


def revoke(path: Path, label: str) -> None:
    """Remove every line of the file that has a key's label.

    Raises:
        KeyFileError: the file has no such key, or as for `read`.
        OSError: the file cannot be read or written.
    """
    path = path.resolve()
    if not path.exists():
        _lines(path)  # raises the error that says so
    with file_lock(path):
        keys = read(path)
        if keys.pop(label, None) is None:
            raise KeyFileError(f"there is no key {label}; there are {', '.join(keys) or 'none'}")
        _write(path, [line for line in _lines(path) if (_entry(line) or ("",))[0] != label])


class KeyFile:
    """The keys of a file that may change at any time.

    A file that becomes unreadable later holds no keys, and the log says why.

    Raises:
        KeyFileError, OSError: as for `read`.
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
        """Return the digests by label; the file is read again if it has changed."""
        if (now := self._signature()) != self._seen:
            self._seen = now
            try:
                self._keys = read(self._path)
                log.event("keys_read", keys=len(self._keys))
            except (KeyFileError, OSError) as error:
                self._keys = {}
                log.event("keys_unreadable", level=logging.ERROR, reason=error)
        return self._keys
