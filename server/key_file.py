"""The file of API keys: one `LABEL:SHA256` a line, the hash of each key in hexadecimal and never the key itself.

Keys are made here with 256 random bits, so that a plain hash cannot be turned back.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from server import log

_KEY_BYTES = 32
_LABEL = re.compile(r"(?!key\d+$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")


class KeyFileError(ValueError):
    """The file cannot be used as it is, or has not what was asked of it; the message is for the operator."""


def digest(key: str) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def read(path: Path) -> dict[str, bytes]:
    """The digests in a file, by label.

    Raises:
        KeyFileError: it is not there, or not of this format.
        OSError: it cannot be read.
    """
    keys: dict[str, bytes] = {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise KeyFileError(f"{path} is not there; `qwen3-tts keys new LABEL` makes it") from None
    except UnicodeDecodeError:
        raise KeyFileError(f"{path} is not text") from None
    for number, line in enumerate(lines, 1):
        label, _, kept = line.partition(":")
        if not (_LABEL.fullmatch(label) and _HASH.fullmatch(kept)):
            raise KeyFileError(f"{path}: line {number} is not LABEL:SHA256")
        if label in keys:
            raise KeyFileError(f"{path}: line {number} has a label that is there already")
        keys[label] = bytes.fromhex(kept)
    return keys


def _write(path: Path, keys: Mapping[str, bytes]) -> None:
    """Replace the file, readable by its owner only; half a file is never there."""
    target = path.resolve()
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.writelines(f"{label}:{known.hex()}\n" for label, known in keys.items())
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    keys = read(path) if path.exists() else {}
    if label in keys:
        raise KeyFileError(f"there is a key {label} already; revoke it first or choose another label")
    key = f"sk-{secrets.token_urlsafe(_KEY_BYTES)}"
    _write(path, {**keys, label: digest(key)})
    return key


def revoke(path: Path, label: str) -> None:
    """Take a key out of the file.

    Raises:
        KeyFileError: it has no such key, or as for `read`.
        OSError: the file cannot be read or written.
    """
    keys = read(path)
    if keys.pop(label, None) is None:
        raise KeyFileError(f"there is no key {label}; there are {', '.join(keys) or 'none'}")
    _write(path, keys)


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
