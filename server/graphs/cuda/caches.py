"""KV caches in a device's memory, where its kernels read and write them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

import numpy as np
import onnxruntime as ort

from server.graphs.caches import Saved, Shape
from server.graphs.cuda.capture import GATE
from server.graphs.cuda.views import BFLOAT16, BITS, FLOAT16, FLOAT32, Views
from server.graphs.windows import Windows

_ELEMENT_TYPES = {"tensor(float)": FLOAT32, "tensor(float16)": FLOAT16, "tensor(bfloat16)": BFLOAT16}


class DeviceCaches:
    """Caches in a device's memory, all of it taken at once.

    Rows change places through host memory: ONNX Runtime's Python interface copies whole tensors between host and device
    only (`copy_tensors` finds no copy within CUDA's memory), so that a slot's first positions, which are one piece of
    memory a head, are copied as so many tensors.

    Args:
        views: of that device.
        types: of each tensor's elements, as ONNX Runtime names them.
        shape: of each.
    """

    def __init__(self, views: Views, types: Sequence[str], shape: Shape) -> None:
        self._types, self._shape = [_ELEMENT_TYPES[name] for name in types], shape
        self._views = views
        with GATE.shared():
            self._caches = [ort.OrtValue.ortvalue_from_shape_and_type(shape, t, views.device, 0) for t in self._types]
        self._from_first: Windows[list[ort.OrtValue]] = Windows(shape[0])
        """All windows that begin with the first slot: a frame's calls are bound to them, and would be recorded anew."""
        self._others: Windows[list[ort.OrtValue]] = Windows(2 * shape[0])
        self._clear()

    def view(self, start: int, stop: int, positions: int | None = None) -> list[ort.OrtValue]:
        windows = self._others if start else self._from_first
        return windows.get(start, stop, lambda: self._window(start, stop))

    def _window(self, start: int, stop: int) -> list[ort.OrtValue]:
        _, *tail = self._shape
        pairs = zip(self._caches, self._types, strict=True)
        return [self._over(cache, t, start * prod(tail), (stop - start, *tail)) for cache, t in pairs]

    def save(self, slot: int, positions: int) -> Saved:
        with GATE.shared():
            return [part.numpy().copy() for part in self._parts(slot, positions)]

    def restore(self, slot: int, saved: Saved) -> None:
        positions, _ = saved[0].shape
        with GATE.shared():
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
        slots, *tail = self._shape
        zeros = {t: np.zeros(tail, BITS[t].dtype) for t in set(self._types)}
        with GATE.shared():
            for slot in range(slots):
                for part, element_type in zip(self._slot(slot), self._types, strict=True):
                    part.update_inplace(zeros[element_type])

    def _slot(self, slot: int) -> list[ort.OrtValue]:
        """A whole slot `[kv_heads, capacity, head_dim]` of each cache, as bits."""
        _, *tail = self._shape
        pairs = zip(self._caches, self._types, strict=True)
        return [self._over(cache, BITS[t].element_type, slot * prod(tail), tail) for cache, t in pairs]

    def _over(self, value: ort.OrtValue, element_type: int, first: int, shape: Sequence[int]) -> ort.OrtValue:
        return self._views.over(value, element_type, BITS[element_type].dtype.itemsize, first, shape)

    def _parts(self, slot: int, positions: int) -> list[ort.OrtValue]:
        """The first positions of a slot `[positions, head_dim]`, head by head and as bits, which NumPy knows."""
        _, heads, capacity, head_dim = self._shape
        return [
            self._over(cache, BITS[t].element_type, (slot * heads + head) * capacity * head_dim, (positions, head_dim))
            for cache, t in zip(self._caches, self._types, strict=True)
            for head in range(heads)
        ]
