"""The codec decoder over states that stay where the kernels run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.codec_decoder import CodecDecoder, CodecState
from server.graphs.cuda.capture import GATE
from server.graphs.garbage import collect_garbage
from server.graphs.memory import Memory

READ_PLACE, WRITE_PLACE = "read_place", "write_place"
"""Inputs of the graph: where in the buffers of states each row's past is, and where its next state goes."""
STATES_A_ROW = 4
"""A row has its own, perhaps one to go back to, and, while it is decoded, the next; one more for what fails."""


class _Place:
    """A place in the buffers of states, free again once nobody refers to it."""

    def __init__(self, free: list[int]) -> None:
        self._free, self.number = free, free.pop()

    def __del__(self) -> None:
        self._free.append(self.number)


@dataclass(frozen=True)
class PooledState(CodecState):
    """A state whose tensors are on a device; `place` is where."""

    place: _Place


class PooledCodecDecoder(CodecDecoder):
    """The codec decoder of a bundle for a GPU: states stay on its device, and rows are joined and parted there.

    Args:
        session: of `codec_decoder.onnx`.
        slots: rows that can be under way at once.
        memory: where the kernels run.
        kept: states that are kept besides those of rows.
    """

    def __init__(self, session: ort.InferenceSession, slots: int, memory: Memory, kept: int = 0) -> None:
        self._session = session
        carried = [value for value in session.get_inputs() if value.name.startswith("past.")]
        count = 1 + STATES_A_ROW * slots + kept
        self._buffers = {v.name: memory.buffer(np.float32, (count, *v.shape[1:])) for v in carried}
        self._free = list(range(count))
        self._start = PooledState(0, (), _Place(self._free))
        self._whole = {name: buffer.view(0, count) for name, buffer in self._buffers.items()}

    def decode(
        self, codes: NDArray[np.int64], states: Sequence[CodecState]
    ) -> tuple[NDArray[np.float32], list[CodecState]]:
        """As `CodecDecoder.decode`.

        Raises:
            RuntimeError: more states are kept than `STATES_A_ROW` allows for.
        """
        rows, frames, _ = codes.shape
        if len(self._free) < rows:
            collect_garbage()  # the traceback of a row's error and the row may hold each other, and so the row's states
        if len(self._free) < rows:
            raise RuntimeError("too many states of the codec decoder are kept")
        after = [PooledState(state.position + frames, (), _Place(self._free)) for state in states]
        inputs = {
            "codes": np.ascontiguousarray(codes),
            "position": np.array([state.position for state in states], np.int64),
            READ_PLACE: np.array([_place(state) for state in states], np.int64),
            WRITE_PLACE: np.array([_place(state) for state in after], np.int64),
        }
        with GATE.shared():  # inputs are copied to the device as they are bound
            binding = self._session.io_binding()
            for name, array in inputs.items():
                binding.bind_cpu_input(name, array)
            binding.bind_output("waveform")
            for name, buffer in self._whole.items():
                binding.bind_ortvalue_input(name, buffer)
                binding.bind_ortvalue_output("next." + name.removeprefix("past."), buffer)
            self._session.run_with_iobinding(binding)
            waveform, *_ = binding.get_outputs()
            return waveform.numpy(), list(after)


def _place(state: CodecState) -> int:
    if not isinstance(state, PooledState):
        raise TypeError("a state that is not on the device")
    return state.place.number
