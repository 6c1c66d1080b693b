"""What this process asks of the system's memory: to take back what has no more use, and to have large pages for what is
read all the time. Elsewhere than on Linux nothing happens."""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAPPINGS = Path("/proc/self/smaps")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
_FIRST_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)")
"""The first line of a mapping: addresses, then permissions, offset, device, inode and path."""
_WRITTEN = ("Anonymous:", "Swap:")
"""Fields that count the pages of a mapping which are no longer the file's."""


_MADV_COLLAPSE = 25
"""This number is in Linux' mman.h, since 6.1; Python has no name for it."""
_FILLED = 0.95
"""A block is joined into large pages if at least this part of it is in memory, since joining fills the rest."""


class Mapping(NamedTuple):
    """A stretch of this process' memory; `resident` and `written` are bytes.

    `path` is the file's, in brackets what the system calls a stretch of another kind, or empty. `flags` are those of
    proc(5), of two letters each.
    """

    address: int
    size: int
    permissions: str
    path: str
    resident: int = 0
    written: int = 0
    flags: tuple[str, ...] = ()


def mappings(folder: Path) -> list[Mapping]:
    """The files of a folder that are mapped; none where the system does not tell."""
    parent = str(folder.resolve())
    return [mapping for mapping in _all_mappings() if mapping.path.rpartition("/")[0] == parent]


def _all_mappings() -> list[Mapping]:
    if sys.platform != "linux":
        return []
    try:
        lines = MAPPINGS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:  # no /proc, in some sandboxes
        return []
    return list(_parse(lines))


def _parse(lines: Iterable[str]) -> Iterator[Mapping]:
    found: Mapping | None = None
    for line in lines:
        if first := _FIRST_LINE.fullmatch(line):
            if found:
                yield found
            start, stop = (int(address, 16) for address in first.group(1, 2))
            found = Mapping(start, stop - start, first[3], first[4])
        elif found and line.startswith("Rss:"):
            found = found._replace(resident=found.resident + _kilobytes(line))
        elif found and line.startswith(_WRITTEN):
            found = found._replace(written=found.written + _kilobytes(line))
        elif found and line.startswith("VmFlags:"):
            found = found._replace(flags=tuple(line.split()[1:]))
    if found:
        yield found


def _kilobytes(line: str) -> int:
    return 1024 * int(line.split()[1])


def give_back_mapped(folder: Path) -> None:
    """Let go of the pages of mapped files in a folder; those that are read again come back by themselves.

    ONNX Runtime copies most weights when it re-packs them, and their originals, which nobody reads again, would stay
    counted. Pages come back from the file, so that a mapping that was written to keeps its own.
    """
    for mapping in mappings(folder):
        if mapping.resident and not mapping.written:
            _libc().madvise(ctypes.c_void_p(mapping.address), ctypes.c_size_t(mapping.size), mmap.MADV_DONTNEED)


def use_huge_pages() -> None:
    """Have the system join large blocks of memory into its large pages (2 MiB on most processors).

    These are the weights that ONNX Runtime has re-packed: each frame reads all of them, and with pages of 4 KiB the
    processor looks up as many addresses as there are pages. What is not in memory as a whole stays as it is, and so do
    caches that were declared to be filled bit by bit. The system may decline; nothing depends on it.
    """
    try:
        page = int((HUGE_PAGES / "hpage_pmd_size").read_text("ascii"))
        if "[never]" in (HUGE_PAGES / "enabled").read_text("ascii"):
            return
    except (OSError, ValueError):  # a kernel without them, or a sandbox
        return
    for block in _all_mappings():
        start, stop = -(-block.address // page) * page, (block.address + block.size) // page * page
        private = block.permissions == "rw-p" and not block.path.startswith("/")
        if not private or start >= stop or block.resident < _FILLED * block.size or "nh" in block.flags:
            continue
        for advice in (mmap.MADV_HUGEPAGE, _MADV_COLLAPSE):
            _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), advice)


def trim_heap() -> None:
    """Return free pages of the C heap to the system, which only glibc has a function for."""
    if sys.platform == "linux" and (trim := getattr(_libc(), "malloc_trim", None)):
        trim(0)


def tune_heap(*, arenas: int, mapped_from: int) -> None:
    """Set how many heaps glibc has, and from how many bytes a block has pages of its own (man 3 mallopt)."""
    if sys.platform == "linux" and (set_option := getattr(_libc(), "mallopt", None)):
        set_option(_M_ARENA_MAX, arenas)
        set_option(_M_MMAP_THRESHOLD, mapped_from)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""This number is in glibc's malloc.h. Other C libraries have no `mallopt`, or one that knows neither."""


class MappedTable:
    """Rows of an `.npy` file that stays on disk.

    Each look-up lets go of what it has mapped, which is sixteen pages for a row: the text table is larger than all
    other weights together, and texts of many words would bring most of it into memory.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no array.
    """

    def __init__(self, path: Path) -> None:
        rows = np.load(path, mmap_mode="r")
        if not isinstance(rows, np.ndarray):
            raise ValueError(f"{path.name} holds no array")
        self._rows: NDArray[Any] = rows

    @property
    def shape(self) -> tuple[int, ...]:
        """`(rows, width)`."""
        return self._rows.shape

    def __getitem__(self, ids: int | list[int]) -> NDArray[Any]:
        rows = np.array(self._rows[ids])
        if isinstance(self._rows.base, mmap.mmap) and sys.platform == "linux":
            self._rows.base.madvise(mmap.MADV_DONTNEED)
        return rows
