"""Where the talker's keys and values live: in host memory; those of a GPU are in `server.graphs.cuda.caches`."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.windows import Windows
from server.manifest import Manifest, TalkerSizes

KERNEL_HEAD_DIM_MULTIPLE = 16
"""The attention kernel takes caches of no other head size; exported graphs pad theirs."""

FIRST_POSITIONS = 256
"""Where memory is taken at once, rows have room for so many positions at the start; it is doubled as it is needed."""
KEPT_POSITIONS = 128
"""A slot that no row holds keeps the memory of so many positions: a sentence uses no more, and the next one uses them
again at once. What a longer row gives back and takes again costs it some milliseconds."""
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
_STRICT = "2"

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
_FLOAT32 = 4  # bytes
_ITEM_BYTES = {"int8": 1, "float16": 2, "bfloat16": 2}

Shape = tuple[int, int, int, int]
Saved = list[NDArray]
"""A slot's first positions: two tensors a layer, or as many a head, of whatever type shows their bits."""


def cache_shape(sizes: TalkerSizes, slots: int) -> Shape:
    """Shape of the keys, or of the values, of one layer: `[slots, kv_heads, max_positions, padded head_dim]`."""
    head_dim = -(-sizes.head_dim // KERNEL_HEAD_DIM_MULTIPLE) * KERNEL_HEAD_DIM_MULTIPLE
    return slots, sizes.num_kv_heads, sizes.max_positions, head_dim


def cache_bytes(manifest: Manifest, slots: int, positions: int | None = None) -> int:
    """Bytes of the KV caches of all slots, if every row took all its positions.

    Args:
        manifest: of the bundle.
        slots: rows that can be under way at once.
        positions: the most that a row may have; None, or more than the model has, is as many as the model has.
    """
    sizes = manifest.sizes.talker
    if positions is not None:
        sizes = sizes.model_copy(update={"max_positions": min(positions, sizes.max_positions)})
    return 2 * sizes.num_layers * prod(cache_shape(sizes, slots)) * item_bytes(manifest)


def item_bytes(manifest: Manifest) -> int:
    """Bytes of a number in the KV cache of a bundle."""
    return _ITEM_BYTES.get(manifest.kv_cache, _FLOAT32)


class Caches(Protocol):
    """KV caches of all slots, one tensor for the keys and one for the values of each layer."""

    def view(self, start: int, stop: int, positions: int | None = None) -> list[ort.OrtValue]:
        """The caches of slots `start` to `stop`, as tensors over the same memory.

        Args:
            start: first slot.
            stop: behind the last one.
            positions: of each that there must be room for. None is all: later views are over the same memory then.

        Raises:
            OSError: the system has no more memory; all that the caches hold is still there.
        """

    def save(self, slot: int, positions: int) -> Saved:
        """A copy of a slot's first positions, for `restore`."""

    def restore(self, slot: int, saved: Saved) -> None:
        """Make a slot begin with what `save` gave."""

    def swap(self, one: int, other: int, positions: int) -> None:
        """Exchange the first `positions` of two slots."""

    def release(self, held: Collection[int]) -> None:
        """Give memory of all slots but the `held` ones back to the system; what those slots hold is lost."""


def takes_memory_at_once() -> bool:
    """Whether memory counts as taken when it is asked for, and not page by page when it is written to.

    Windows does so, and Linux where it is told to account strictly (vm.overcommit_memory=2).
    """
    if sys.platform == "win32":
        return True
    try:
        return OVERCOMMIT.read_text("ascii").strip() == _STRICT
    except OSError:  # not Linux, or a sandbox without /proc
        return False


class HostCaches:
    """Caches in host memory, of which a slot takes only as much as it is used.

    Where memory is taken at once, all slots have room for as many positions as the longest row needed so far.

    Args:
        types: of each tensor's elements, float32, float16 or int8, as ONNX Runtime names them.
        shape: of each.
    """

    def __init__(self, types: Sequence[str], shape: Shape) -> None:
        self._types, self._shape = [_DTYPES[name] for name in types], shape
        most = shape[2]
        self._positions = min(FIRST_POSITIONS, most) if takes_memory_at_once() else most
        self._maps, self._caches = self._allocate(self._positions)
        self._touched = [0] * shape[0]
        """Positions of each slot that may have taken memory."""
        self._windows: Windows[list[ort.OrtValue]] = Windows(2 * shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes that have been asked for."""
        return sum(cache.nbytes for cache in self._caches)

    def _allocate(self, positions: int) -> tuple[list[mmap.mmap], list[NDArray]]:
        slots, heads, _, head_dim = self._shape
        shape = slots, heads, positions, head_dim
        maps = [_untouched(prod(shape) * np.dtype(dtype).itemsize) for dtype in self._types]
        return maps, [np.frombuffer(m, t).reshape(shape) for m, t in zip(maps, self._types, strict=True)]

    def _make_room(self, positions: int) -> None:
        held = self._positions
        if positions > held:
            room = min(max(positions, 2 * held), self._shape[2])
            maps, larger = self._allocate(room)  # before anything is let go of: this may fail
            for old, new in zip(self._caches, larger, strict=True):
                new[:, :, :held] = old
            self._maps, self._caches, self._positions = maps, larger, room
            self._windows.clear()

    def _touch(self, slots: Collection[int], positions: int) -> None:
        self._make_room(positions)
        for slot in slots:
            self._touched[slot] = max(self._touched[slot], positions)

    def view(self, start: int, stop: int, positions: int | None = None) -> list[ort.OrtValue]:
        self._touch(range(start, stop), self._shape[2] if positions is None else positions)
        return self._windows.get(
            start, stop, lambda: [ort.OrtValue.ortvalue_from_numpy(cache[start:stop]) for cache in self._caches]
        )

    def save(self, slot: int, positions: int) -> Saved:
        return [cache[slot, :, :positions].copy() for cache in self._caches]

    def restore(self, slot: int, saved: Saved) -> None:
        self._touch([slot], saved[0].shape[1])
        for cache, kept in zip(self._caches, saved, strict=True):
            cache[slot, :, : kept.shape[1]] = kept

    def swap(self, one: int, other: int, positions: int) -> None:
        self._touch([one, other], positions)
        for cache in self._caches:
            kept = cache[one, :, :positions].copy()
            cache[one, :, :positions] = cache[other, :, :positions]
            cache[other, :, :positions] = kept

    def release(self, held: Collection[int]) -> None:
        """As `Caches` says, but for `KEPT_POSITIONS` of each slot. Only Linux takes memory back: others keep it."""
        if sys.platform != "linux":
            return
        for slot, touched in enumerate(self._touched):
            if touched > KEPT_POSITIONS and slot not in held:
                for cache, memory in zip(self._caches, self._maps, strict=True):
                    _let_go(memory, cache, slot, touched)
                self._touched[slot] = KEPT_POSITIONS


def _untouched(size: int) -> mmap.mmap:
    """Zeros that take memory page by page as they are written, where the system has such memory.

    Never huge pages, which NumPy asks for: the few positions that a row uses in each head would take most of a
    gigabyte of them. Private, since Linux takes back pages of private memory alone.
    """
    if sys.platform != "linux":
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def _let_go(memory: mmap.mmap, cache: NDArray, slot: int, touched: int) -> None:
    """Give back the whole pages of a slot's positions from `KEPT_POSITIONS` to `touched`, head by head."""
    if sys.platform != "linux":
        return
    per_slot, per_head, per_position, _ = cache.strides
    for head in range(cache.shape[1]):
        begin = slot * per_slot + head * per_head
        # The last page may hold positions behind `touched`, which hold nothing, but none of the next head.
        start = -(-(begin + KEPT_POSITIONS * per_position) // mmap.PAGESIZE)
        stop = min(-(-(begin + touched * per_position) // mmap.PAGESIZE), (begin + per_head) // mmap.PAGESIZE)
        if start < stop:
            memory.madvise(mmap.MADV_DONTNEED, start * mmap.PAGESIZE, (stop - start) * mmap.PAGESIZE)
