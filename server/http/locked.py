"""One process at a time for a file that is read, changed and written again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def _take(handle: int) -> None:
    """Wait for the lock of an open file."""
    if sys.platform == "win32":
        import msvcrt

        while True:
            with suppress(OSError):  # it gives up after ten seconds
                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
                return
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock `.NAME.lock` beside a file; it is gone afterwards.

    Where the folder takes no new file, as beside a single file that is mounted into a container, the file itself is
    locked: nobody can replace it there.

    Raises:
        OSError: neither the lock nor the file can be opened for writing.
    """
    beside = path.with_name(f".{path.name}.lock")
    while True:
        try:
            handle, lock = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600), beside
        except OSError as error:
            if not path.exists():
                raise OSError(error.errno, error.strerror, str(path)) from None
            handle, lock = os.open(path, os.O_RDWR), path
        try:
            _take(handle)
            if not _is_still(lock, handle):
                continue  # whoever held it has taken it away
            try:
                yield
                return
            finally:
                if lock is beside:
                    with suppress(OSError):  # Windows keeps a file that is open
                        beside.unlink()
        finally:
            os.close(handle)


def _is_still(lock: Path, handle: int) -> bool:
    """Whether the path means the open file."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
