"""Runs the codec decoder graph: codec frames to samples, with the state in the caller's hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.cuda.device_memory import FLOAT32, SlotBuffer, Views

TAKEN, LEFT = "taken", "left"
"""Inputs of a bundle for a GPU: where in the buffers of states each row's past is, and where its next state goes."""
STATES_A_ROW = 4
"""A row has its own, perhaps one to go back to, and, while it is decoded, the next; one more for what fails."""

FRAMES_AT_ONCE = 8
"""Of all rows together in one call on the CPU. More are no faster, and ONNX Runtime keeps the memory of its largest
call: some 13 MB a frame of the full-size decoder."""


@dataclass(frozen=True)
class CodecState:
    """What a row's next frames need of its past: frames decoded so far, and the graph's carried tensors `[1, ...]`."""

    position: int
    tensors: tuple[ort.OrtValue, ...]


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


class CodecDecoder:
    """The codec decoder's session; it keeps nothing between calls. That of a GPU is `PooledCodecDecoder`.

    Args:
        session: of `codec_decoder.onnx`.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        carried = [value for value in session.get_inputs() if value.name.startswith("past.")]
        self._past = [value.name for value in carried]
        self._outputs = ["waveform", *("next." + name.removeprefix("past.") for name in self._past)]
        zeros = [np.zeros((1, *value.shape[1:]), np.float32) for value in carried]
        self._start = CodecState(0, tuple(ort.OrtValue.ortvalue_from_numpy(z) for z in zeros))

    def start(self) -> CodecState:
        """The state before the first frame."""
        return self._start

    def decode(
        self, codes: NDArray[np.int64], states: Sequence[CodecState]
    ) -> tuple[NDArray[np.float32], list[CodecState]]:
        """Decode the same number of frames for every row.

        Args:
            codes: `[rows, frames, num_quantizers]`.
            states: one a row; they stay valid and may be decoded from again.

        Returns:
            Samples in [-1, 1] `[rows, frames * samples_per_frame]`, and the next states.
        """
        rows, frames, _ = codes.shape
        at_once = max(1, FRAMES_AT_ONCE // frames)
        parts = [slice(first, first + at_once) for first in range(0, rows, at_once)]
        decoded = [self._run(codes[part], states[part]) for part in parts]
        return np.concatenate([samples for samples, _ in decoded]), [state for _, after in decoded for state in after]

    def _run(
        self, codes: NDArray[np.int64], states: Sequence[CodecState]
    ) -> tuple[NDArray[np.float32], list[CodecState]]:
        rows, frames, _ = codes.shape
        past = states[0].tensors if rows == 1 else _join(states)
        position = np.array([state.position for state in states], np.int64)
        inputs = {
            "codes": ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(codes)),
            "position": ort.OrtValue.ortvalue_from_numpy(position),
            **dict(zip(self._past, past, strict=True)),
        }
        waveform, *following = self._session.run_with_ort_values(self._outputs, inputs)
        split = [following] if rows == 1 else _split(following, rows)
        after = [CodecState(state.position + frames, tuple(row)) for state, row in zip(states, split, strict=True)]
        return waveform.numpy(), after


def _join(states: Sequence[CodecState]) -> list[ort.OrtValue]:
    columns = zip(*(state.tensors for state in states), strict=True)
    return [ort.OrtValue.ortvalue_from_numpy(np.concatenate([t.numpy() for t in column])) for column in columns]


def _split(tensors: Sequence[ort.OrtValue], rows: int) -> list[list[ort.OrtValue]]:
    arrays = [tensor.numpy() for tensor in tensors]
    return [[ort.OrtValue.ortvalue_from_numpy(array[row : row + 1].copy()) for array in arrays] for row in range(rows)]


class PooledCodecDecoder(CodecDecoder):
    """The codec decoder of a bundle for a GPU: states stay on its device, and rows are joined and parted there.

    Args:
        session: of `codec_decoder.onnx`.
        slots: rows that can be under way at once.
        device: cpu or cuda.
    """

    def __init__(self, session: ort.InferenceSession, slots: int, device: str) -> None:
        self._session = session
        views = Views(session, device)
        carried = [value for value in session.get_inputs() if value.name.startswith("past.")]
        count = 1 + STATES_A_ROW * slots
        self._buffers = {v.name: SlotBuffer(views, FLOAT32, (count, *v.shape[1:])) for v in carried}
        self._free = list(range(count))
        self._start = PooledState(0, (), _Place(self._free))
        for buffer, value in zip(self._buffers.values(), carried, strict=True):
            buffer.put(self._start.place.number, np.zeros(value.shape[1:], np.float32))
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
            raise RuntimeError("too many states of the codec decoder are kept")
        after = [PooledState(state.position + frames, (), _Place(self._free)) for state in states]
        inputs = {
            "codes": np.ascontiguousarray(codes),
            "position": np.array([state.position for state in states], np.int64),
            TAKEN: np.array([_place(state) for state in states], np.int64),
            LEFT: np.array([_place(state) for state in after], np.int64),
        }
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
