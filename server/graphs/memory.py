"""Memory that the kernels of a session work in; that of a GPU is `server.graphs.cuda.memory`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.caches import Caches, HostCaches, Shape


class SlotBuffer(Protocol):
    """A tensor `[slots, ...]` that stays where it is."""

    def view(self, start: int, stop: int) -> ort.OrtValue:
        """The rows of slots `start` to `stop`, as a tensor over the same memory."""

    def write(self, start: int, rows: NDArray[Any]) -> None:
        """Copy rows to the slots from `start` on."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """A copy of the rows of slots `start` to `stop`."""


class Memory(Protocol):
    """Where tensors lie."""

    copies_fast: bool
    """Whether a prompt's beginning is copied faster than it is prefilled again."""

    def buffer(self, dtype: type[np.generic], shape: tuple[int, ...]) -> SlotBuffer:
        """A buffer of zeros."""

    def caches(self, types: Sequence[str], shape: Shape) -> Caches:
        """KV caches of some element types, as ONNX Runtime names those of a graph's inputs."""


class HostMemory:
    """The memory that this process computes in."""

    copies_fast = True

    def buffer(self, dtype: type[np.generic], shape: tuple[int, ...]) -> SlotBuffer:
        return HostBuffer(np.zeros(shape, dtype))

    def caches(self, types: Sequence[str], shape: Shape) -> Caches:
        return HostCaches(types, shape)


class HostBuffer:
    """A buffer over an array.

    Args:
        array: `[slots, ...]`, contiguous.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def view(self, start: int, stop: int) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(self._array[start:stop])

    def write(self, start: int, rows: NDArray[Any]) -> None:
        self._array[start : start + len(rows)] = rows

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self._array[start:stop].copy()
