"""Where the talker's keys and values live: in host memory, or on the GPU where its kernels read and write them."""

from __future__ import annotations

import mmap
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.cuda.device_memory import BFLOAT16, BITS, FLOAT16, FLOAT32, Views
from server.graphs.session import CUDA_PRECISIONS
from server.manifest import Manifest, TalkerSizes

KERNEL_HEAD_DIM_MULTIPLE = 16
"""The attention kernel takes caches of no other head size; exported graphs pad theirs."""

FIRST_POSITIONS = 256
"""Of a row, that there is room for at the start where memory is taken at once; room is doubled as it is needed."""
KEPT_POSITIONS = 512
"""A slot that no row holds keeps the memory of so many positions: most rows use no more, and use them again at once."""
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
_STRICT = "2"

ELEMENT_TYPES = {"tensor(float)": FLOAT32, "tensor(float16)": FLOAT16, "tensor(bfloat16)": BFLOAT16}


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
    narrow = manifest.precision in CUDA_PRECISIONS
    return 2 * sizes.num_layers * prod(cache_shape(sizes, slots)) * (2 if narrow else 4)


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


class Windows:
    """The tensors of the windows of slots that were used last: there are quadratically many windows, and few in use.

    Args:
        most: windows that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[int, int], list[ort.OrtValue]] = OrderedDict()

    def get(self, start: int, stop: int, make: Callable[[], list[ort.OrtValue]]) -> list[ort.OrtValue]:
        """The tensors of slots `start` to `stop`, made where they are not kept."""
        values = self._kept.pop((start, stop), None) or make()
        self._kept[start, stop] = values
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return values

    def clear(self) -> None:
        """Keep none."""
        self._kept.clear()


def open_caches(session: ort.InferenceSession, sizes: TalkerSizes, slots: int, device: str) -> Caches:
    """Caches for the inputs of a talker's session whose names begin with `past.`, on `device` (cpu or cuda)."""
    types = [ELEMENT_TYPES[value.type] for value in session.get_inputs() if value.name.startswith("past.")]
    shape = cache_shape(sizes, slots)
    return HostCaches(types, shape) if device == "cpu" else DeviceCaches(session, types, shape, device)


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
        types: ONNX element type of each tensor, float32 or float16.
        shape: of each.
    """

    def __init__(self, types: Sequence[int], shape: Shape) -> None:
        self._types, self._shape = [np.float32 if t == FLOAT32 else np.float16 for t in types], shape
        most = shape[2]
        self._positions = min(FIRST_POSITIONS, most) if takes_memory_at_once() else most
        self._maps, self._caches = self._allocate(self._positions)
        self._touched = [0] * shape[0]
        """Positions of each slot that may have taken memory."""
        self._windows = Windows(2 * shape[0])

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


class DeviceCaches:
    """Caches in a device's memory, all of it taken at once.

    Rows change places through host memory: ONNX Runtime's Python interface copies whole tensors between host and device
    only, so that a slot's first positions, which are one piece of memory a head, are copied as so many tensors.

    Args:
        session: of the talker; its bindings make tensors over addresses.
        types: ONNX element type of each tensor.
        shape: of each.
        device: as ONNX Runtime calls it; `cpu` is for tests.
    """

    def __init__(self, session: ort.InferenceSession, types: Sequence[int], shape: Shape, device: str) -> None:
        self._types, self._shape = types, shape
        self._memory = Views(session, device)
        self._caches = [ort.OrtValue.ortvalue_from_shape_and_type(shape, t, device, 0) for t in types]
        self._windows = Windows(2 * shape[0])
        self._clear()

    def view(self, start: int, stop: int, positions: int | None = None) -> list[ort.OrtValue]:
        return self._windows.get(start, stop, lambda: self._window(start, stop))

    def _window(self, start: int, stop: int) -> list[ort.OrtValue]:
        _, *tail = self._shape
        pairs = zip(self._caches, self._types, strict=True)
        return [self._over(cache, t, start * prod(tail), (stop - start, *tail)) for cache, t in pairs]

    def save(self, slot: int, positions: int) -> Saved:
        return [part.numpy().copy() for part in self._parts(slot, positions)]

    def restore(self, slot: int, saved: Saved) -> None:
        positions, _ = saved[0].shape
        for part, kept in zip(self._parts(slot, positions), saved, strict=True):
            part.update_inplace(kept)

    def swap(self, one: int, other: int, positions: int) -> None:
        first, second = self.save(one, positions), self.save(other, positions)
        self.restore(one, second)
        self.restore(other, first)

    def release(self, held: Collection[int]) -> None:
        """A device's memory stays taken."""

    def _clear(self) -> None:
        """What was in this memory before might be no number, which would outlive a weight of 0."""
        _, _, capacity, head_dim = self._shape
        zeros = {t: np.zeros((capacity, head_dim), BITS[t].dtype) for t in set(self._types)}
        kinds = [t for t in self._types for _ in range(self._shape[1])]
        for slot in range(self._shape[0]):
            for part, element_type in zip(self._parts(slot, capacity), kinds, strict=True):
                part.update_inplace(zeros[element_type])

    def _over(self, value: ort.OrtValue, element_type: int, first: int, shape: Sequence[int]) -> ort.OrtValue:
        return self._memory.over(value, element_type, BITS[element_type].dtype.itemsize, first, shape)

    def _parts(self, slot: int, positions: int) -> list[ort.OrtValue]:
        """The first positions of a slot `[positions, head_dim]`, head by head and as bits, which NumPy knows."""
        _, heads, capacity, head_dim = self._shape
        return [
            self._over(cache, BITS[t].element_type, (slot * heads + head) * capacity * head_dim, (positions, head_dim))
            for cache, t in zip(self._caches, self._types, strict=True)
            for head in range(heads)
        ]
