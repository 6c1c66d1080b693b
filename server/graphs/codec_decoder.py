"""Runs the codec decoder graph: codec frames to samples, with the state in the caller's hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

FRAMES_AT_ONCE = 8
"""Frames of all rows together in one call on the CPU. More are no faster, and ONNX Runtime keeps the memory of its
largest call: some 13 MB a frame of the full-size decoder."""


@dataclass(frozen=True)
class CodecState:
    """What a row's next frames need of its past: frames decoded so far, and the graph's carried tensors `[1, ...]`."""

    position: int
    tensors: tuple[ort.OrtValue, ...]


class CodecDecoder:
    """The codec decoder's session; it keeps nothing between calls.

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
