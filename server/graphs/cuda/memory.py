"""Memory of a device: buffers and caches, of which rows are parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.bound_call import NOT_CAPTURED, BoundCall
from server.graphs.caches import Caches, Shape
from server.graphs.cuda.caches import DeviceCaches
from server.graphs.cuda.capture import GATE, CapturedCall
from server.graphs.cuda.views import BOOL, FLOAT32, INT32, INT64, Views
from server.graphs.memory import Call, SlotBuffer
from server.graphs.windows import Windows

_NUMBERS: dict[type[np.generic], int] = {np.float32: FLOAT32, np.int32: INT32, np.int64: INT64, np.bool_: BOOL}
WINDOWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Sizes of the windows that calls are made for, each of which begins with the first slot; so does that of all slots,
which is one more."""


class DeviceBuffer:
    """A tensor `[slots, ...]` in a device's memory that stays where it is.

    Args:
        views: of that device.
        dtype: float32, int32, int64 or bool.
        shape: with the slots.
    """

    def __init__(self, views: Views, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self._views, self._dtype, self._tail = views, dtype, shape[1:]
        self._windows: Windows[ort.OrtValue] = Windows(2 * shape[0])
        with GATE.shared():
            self._value = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, views.device, 0)
        self.write(0, np.zeros(shape, dtype))

    def view(self, start: int, stop: int) -> ort.OrtValue:
        return self._windows.get(start, stop, lambda: self._window(start, stop))

    def _window(self, start: int, stop: int) -> ort.OrtValue:
        shape, size = (stop - start, *self._tail), np.dtype(self._dtype).itemsize
        return self._views.over(self._value, _NUMBERS[self._dtype], size, start * prod(self._tail), shape)

    def write(self, start: int, rows: NDArray[Any]) -> None:
        with GATE.shared():
            self.view(start, start + len(rows)).update_inplace(np.ascontiguousarray(rows))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        with GATE.shared():
            return np.array(self.view(start, stop).numpy())


class DeviceMemory:
    """Memory of a device.

    Args:
        session: any on that device.
        device: as ONNX Runtime calls it; `cpu` is for tests.
    """

    copies_fast = False
    """A GPU prefills a prefix in the time that a copy takes."""
    idle_take_part = True
    """Each window is a recording of its own, and a GPU computes idle rows beside others in the same time."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._views = Views(session, device)

    def buffer(self, dtype: type[np.generic], shape: tuple[int, ...]) -> SlotBuffer:
        return DeviceBuffer(self._views, dtype, shape)

    def caches(self, types: Sequence[str], shape: Shape) -> Caches:
        return DeviceCaches(self._views, types, shape)

    def window(self, start: int, stop: int, slots: int) -> tuple[int, int]:
        return 0, min(slots, next((size for size in WINDOWS if size >= stop), slots))

    def call(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, ort.OrtValue],
        outputs: Mapping[str, ort.OrtValue],
        number: int,
    ) -> Call:
        return CapturedCall(BoundCall(session, inputs, outputs), number)

    def run_once(self, session: ort.InferenceSession, binding: ort.IOBinding, feed: Mapping[str, NDArray[Any]]) -> None:
        with GATE.shared():  # arrays are copied to the device as they are bound
            for name, array in feed.items():
                binding.bind_cpu_input(name, array)
            session.run_with_iobinding(binding, NOT_CAPTURED)
