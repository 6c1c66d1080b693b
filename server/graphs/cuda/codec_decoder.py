"""The codec decoder over states that stay where the kernels run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.codec_decoder import FRAMES_AT_ONCE, CodecDecoder, CodecState
from server.graphs.garbage import collect_garbage
from server.graphs.memory import Call, Memory, SlotBuffer

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

PAST_STATES, NEXT_STATES = "past.states", "next.states"
"""Input and output of the graph: the buffer of states, float32 `[states, chunks, floats of a chunk]`."""
READ_PLACE, WRITE_PLACE = "read_place", "write_place"
"""Inputs of the graph: where in the buffer of states each row's past is, and where its next state goes."""
STATES_A_ROW = 4
"""A row has its own, perhaps one to go back to, and, while it is decoded, the next; one more for what fails."""
ROWS = (1, 2, 4, 8, 16, 32)
"""Rows that a call may have. Each pair of rows and frames is a recording of its own, and a Conv is planned anew, for a
tenth of a second, when its input has another shape than before."""
FRAMES = (8, 4, 2, 1)
"""Frames that a call may have: those of the engine's own chunks. Any other number takes several calls."""


class _Place:
    """A place in the buffer of states, free again once nobody refers to it."""

    def __init__(self, free: list[int]) -> None:
        self._free, self.number = free, free.pop()

    def __del__(self) -> None:
        self._free.append(self.number)


@dataclass(frozen=True)
class PooledState(CodecState):
    """A state whose tensors are on a device; `place` is where."""

    place: _Place


@dataclass(frozen=True)
class _Shape:
    """The call for some rows of some frames, and the buffers that it has for itself."""

    codes: SlotBuffer
    waveform: SlotBuffer
    call: Call


class PooledCodecDecoder(CodecDecoder):
    """The codec decoder of a bundle for a GPU: states stay on its device, and rows are joined and parted there.

    Args:
        session: of `codec_decoder.onnx`.
        samples_per_frame: of its waveform.
        slots: rows that can be under way at once.
        memory: where the kernels run.
        kept: states that are kept besides those of rows.
    """

    def __init__(
        self, session: ort.InferenceSession, samples_per_frame: int, slots: int, memory: Memory, kept: int = 0
    ) -> None:
        self._session, self._memory, self._samples_per_frame = session, memory, samples_per_frame
        shapes = {value.name: value.shape[1:] for value in session.get_inputs()}
        _, self._groups = shapes["codes"]
        self._most_rows = _enough(min(slots, ROWS[-1]))
        count = 1 + self._most_rows + STATES_A_ROW * slots + kept
        self._count, self._states = count, memory.buffer(np.float32, (count, *shapes[PAST_STATES]))
        self._position, self._read, self._write = (memory.buffer(np.int64, (self._most_rows,)) for _ in range(3))
        self._passing = np.arange(self._most_rows)
        self._free = list(range(self._most_rows, count))
        self._start = PooledState(0, (), _Place(self._free))
        self._shapes: dict[tuple[int, int], _Shape] = {}

    def decode(self, codes: Ints, states: Sequence[CodecState]) -> tuple[Floats, list[CodecState]]:
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
        at_once = self._most_rows
        if not self._memory.idle_take_part:  # the CPU
            at_once = min(at_once, max(1, FRAMES_AT_ONCE // frames))
        parts = [slice(first, first + at_once) for first in range(0, rows, at_once)]
        return np.concatenate([self._part(codes[part], states[part], after[part]) for part in parts]), list(after)

    def _part(self, codes: Ints, before: Sequence[CodecState], after: Sequence[PooledState]) -> Floats:
        """Samples of rows that fit into one call; each call but the last leaves its states for the next one alone.

        A row's states go to a passing place and its last place by turns, since a call may run several times and so
        writes nowhere where it reads. Idle rows read the start, and write to passing places that no row has.
        """
        rows, frames, _ = codes.shape
        size = _enough(rows)
        position, read = np.zeros(size, np.int64), np.full(size, _place(self._start))
        position[:rows] = [state.position for state in before]
        read[:rows] = [_place(state) for state in before]
        last, passing = self._passing[:size].copy(), self._passing[:size]
        last[:rows] = [_place(state) for state in after]
        samples, counts, start = [], list(_calls(frames)), 0
        for left, count in zip(reversed(range(len(counts))), counts, strict=True):
            write = passing if left % 2 else last
            whole = np.zeros((size, count, self._groups), np.int64)
            whole[:rows] = codes[:, start : start + count]
            samples.append(self._call(whole, position, read, write)[:rows])
            position[:rows] += count
            read[:rows] = write[:rows]
            start += count
        return np.concatenate(samples, axis=1)

    def _call(self, codes: Ints, position: Ints, read: Ints, write: Ints) -> Floats:
        rows, frames, _ = codes.shape
        shape = self._shapes.get((rows, frames))
        if shape is None:
            shape = self._shapes[rows, frames] = self._shape(rows, frames)
        pairs = ((shape.codes, codes), (self._position, position), (self._read, read), (self._write, write))
        for buffer, values in pairs:
            buffer.write(0, values)
        shape.call.run()
        return shape.waveform.read(0, rows)

    def _shape(self, rows: int, frames: int) -> _Shape:
        codes = self._memory.buffer(np.int64, (rows, frames, self._groups))
        waveform = self._memory.buffer(np.float32, (rows, frames * self._samples_per_frame))
        states = self._states.view(0, self._count)
        inputs = {
            "codes": codes.view(0, rows),
            "position": self._position.view(0, rows),
            READ_PLACE: self._read.view(0, rows),
            WRITE_PLACE: self._write.view(0, rows),
            PAST_STATES: states,
        }
        outputs = {"waveform": waveform.view(0, rows), NEXT_STATES: states}
        number = ROWS.index(rows) * len(FRAMES) + FRAMES.index(frames)
        return _Shape(codes, waveform, self._memory.call(self._session, inputs, outputs, number))


def _enough(rows: int) -> int:
    return next(size for size in ROWS if size >= rows)


def _calls(frames: int) -> Iterator[int]:
    """The frames of each call."""
    for count in FRAMES:
        while frames >= count:
            yield count
            frames -= count


def _place(state: CodecState) -> int:
    if not isinstance(state, PooledState):
        raise TypeError("a state that is not on the device")
    return state.place.number
