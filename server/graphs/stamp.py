"""Remembers that a bundle's files were whole, so that not every start reads and hashes gigabytes.

The stamp lies beside the files. It holds what the file system says of each of them, and the hash it had: a file that is
written to, replaced or copied no longer fits, and everything is hashed again. What it cannot see is a disk that gives
other bytes than were written; removing the stamp has them hashed again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from server.graphs.manifest import Manifest, verify_files

STAMP_NAME = ".verified.json"


def verify_once(folder: Path, manifest: Manifest) -> None:
    """Do as `verify_files` does, unless its files are those of the last time that it succeeded.

    A stamp that is damaged counts as none; a folder that cannot be written to gets none.

    Raises:
        BundleError: as `verify_files`.
    """
    stamp = folder / STAMP_NAME
    before = _state(folder, manifest)
    if before is not None and _read(stamp) == before:
        return
    verify_files(folder, manifest)
    if before is not None:
        _write(stamp, before)


def _state(folder: Path, manifest: Manifest) -> bytes | None:
    """What must not have changed, or None where a file is missing or cannot be looked at."""
    state: dict[str, list[Any]] = {"": sorted(graph.file for graph in manifest.graphs.values())}  # no file's name
    for name, entry in manifest.files.items():
        try:
            found = (folder / name).stat()
        except OSError:
            return None
        # Copying tools restore the time of the content, none restores that of the inode.
        state[name] = [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, entry.size, entry.sha256]
    return json.dumps(state, indent=1).encode()


def _read(stamp: Path) -> bytes | None:
    try:
        return stamp.read_bytes()
    except OSError:
        return None


def _write(stamp: Path, state: bytes) -> None:
    unfinished = stamp.with_name(f"{stamp.name}.{os.getpid()}")
    try:
        try:
            unfinished.write_bytes(state)
            unfinished.replace(stamp)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError:  # a models folder that is mounted read-only, say: the next start hashes again
        return
