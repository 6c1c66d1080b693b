"""Checks that a bundle's files are whole, and remembers it, so that not every start reads and hashes gigabytes.

A stamp beside the files remembers it. It holds what the file system says of each of them, and the hash it had: a file
that is written to, replaced or copied no longer fits, and everything is hashed again. What it cannot see is a disk
that gives other bytes than were written; removing the stamp has them hashed again.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from server.graphs.cores import usable_cores
from server.graphs.external_data import external_data
from server.manifest import MANIFEST_NAME, BundleError, Manifest, sha256_of

STAMP_NAME = ".verified.json"


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compare size and SHA-256 of every file of the bundle with its manifest, and see that the graphs read no others.

    Raises:
        BundleError: a file is missing, has another size or another hash, or a graph reads one that is not listed.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder.name}: {name} is missing; convert the checkpoint again")
        if path.stat().st_size != entry.size:  # the size that it has is not told: it may be a link to anywhere
            raise BundleError(
                f"{folder.name}: {name} does not have the {entry.size} bytes that {MANIFEST_NAME} gives it; "
                "copy the bundle again or convert the checkpoint again"
            )
    names = sorted(manifest.files, key=lambda name: -manifest.files[name].size)  # the longest first, so none is late
    with ThreadPoolExecutor(usable_cores()) as pool:  # hashing lets other threads run
        for name, found in zip(names, pool.map(lambda name: sha256_of(folder / name), names), strict=True):
            if found != manifest.files[name].sha256:
                raise BundleError(
                    f"{folder.name}: {name} is damaged (its SHA-256 is not the manifest's); "
                    "copy the bundle again or convert the checkpoint again"
                )
    for graph in manifest.graphs.values():
        if unlisted := external_data(folder / graph.file) - manifest.files.keys():
            raise BundleError(
                f"{folder.name}: {graph.file} reads {min(unlisted)!r}, which {MANIFEST_NAME} does not list in files; "
                "convert the checkpoint again"
            )


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
