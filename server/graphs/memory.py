"""Memory that the kernels of a session work in; that of a GPU is `server.graphs.cuda.memory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.bound_call import BoundCall
from server.graphs.caches import Caches, HostCaches, Shape


class SlotBuffer(Protocol):
    """A tensor `[slots, ...]` that stays where it is."""

    def view(self, start: int, stop: int) -> ort.OrtValue:
        """The rows of slots `start` to `stop`, as a tensor over the same memory."""

    def write(self, start: int, rows: NDArray[Any]) -> None:
        """Copy rows to the slots from `start` on."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """A copy of the rows of slots `start` to `stop`."""


class Call(Protocol):
    """A session with its tensors bound."""

    def run(self) -> None:
        """Run the graph."""


class Memory(Protocol):
    """Where tensors lie, and how graphs are run over them."""

    copies_fast: bool
    """Whether a prompt's beginning is copied faster than it is prefilled again."""
    idle_take_part: bool
    """Whether calls are made for few windows only, so that slots take part that have no row in this frame."""

    def buffer(self, dtype: type[np.generic], shape: tuple[int, ...]) -> SlotBuffer:
        """A buffer of zeros."""

    def caches(self, types: Sequence[str], shape: Shape) -> Caches:
        """KV caches of some element types, as ONNX Runtime names those of a graph's inputs."""

    def window(self, start: int, stop: int, slots: int) -> tuple[int, int]:
        """The window that is called for slots `start` to `stop`, of `slots` in all; it holds them."""

    def call(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, ort.OrtValue],
        outputs: Mapping[str, ort.OrtValue],
        number: int,
    ) -> Call:
        """A call of a session, whose tensors and values on the host are always the same.

        Its number, from 0 on, is that of no other call of the session with other shapes or tensors.
        """

    def run_once(self, session: ort.InferenceSession, binding: ort.IOBinding, feed: Mapping[str, NDArray[Any]]) -> None:
        """Bind the host's arrays too and run a graph, over tensors that it will not be run over again."""


class HostMemory:
    """The memory that this process computes in."""

    copies_fast, idle_take_part = True, False

    def buffer(self, dtype: type[np.generic], shape: tuple[int, ...]) -> SlotBuffer:
        return HostBuffer(np.zeros(shape, dtype))

    def caches(self, types: Sequence[str], shape: Shape) -> Caches:
        return HostCaches(types, shape)

    def window(self, start: int, stop: int, slots: int) -> tuple[int, int]:
        return start, stop

    def call(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, ort.OrtValue],
        outputs: Mapping[str, ort.OrtValue],
        number: int,
    ) -> Call:
        return BoundCall(session, inputs, outputs)

    def run_once(self, session: ort.InferenceSession, binding: ort.IOBinding, feed: Mapping[str, NDArray[Any]]) -> None:
        for name, array in feed.items():
            binding.bind_cpu_input(name, array)
        session.run_with_iobinding(binding)


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
