"""A lock for a file that several processes read, change and write again."""

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
            with suppress(OSError):  # Windows gives up after ten seconds
                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
                return
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock on a file, by a file `.NAME.lock` beside it that is removed afterwards.

    If no file can be made in the folder, as beside a single file that is mounted into a container, the file itself is
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
                continue  # the process that held the lock has removed its file
            try:
                yield
                return
            finally:
                if lock is beside:
                    with suppress(OSError):  # Windows does not remove a file that another process has opened
                        beside.unlink()
        finally:
            os.close(handle)


def _is_still(lock: Path, handle: int) -> bool:
    """Whether the open file still lies at the path."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
