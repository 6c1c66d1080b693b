"""Runs the frame's graph: it draws code 0 from the talker's logits and has the code predictor fill the other codes."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.graphs.bound_call import NOT_CAPTURED
from server.graphs.frame_state import IDLE, FrameState, control_buffer
from server.graphs.memory import Call
from server.graphs.windows import Windows

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class CodePredictor:
    """The session of the frame's graph; what it needs of earlier frames is in the state.

    Args:
        session: of `code_predictor.onnx`.
        state: what it shares with the talker.
    """

    def __init__(self, session: ort.InferenceSession, state: FrameState) -> None:
        self._session, self._state = session, state
        self._calls: Windows[Call] = Windows(2 * state.slots)

    def run(self, start: int, controls: Floats) -> Ints:
        """Draw a frame for each of the neighbouring slots from `start` on, a window that the memory allows.

        Args:
            start: first slot.
            controls: as `control_buffer` gives them, `[rows, ...]`.

        Returns:
            Codes `[rows, groups]`; code 0 may be end-of-speech or `NOT_FINITE`.
        """
        state, stop = self._state, start + len(controls)
        state.controls.write(start, controls)
        self._calls.get(start, stop, lambda: self._bind(start, stop)).run()
        return state.codes.read(start, stop)

    def _bind(self, start: int, stop: int) -> Call:
        state = self._state
        seen = state.seen.view(start, stop)
        inputs = {
            "controls": state.controls.view(start, stop),
            "talker_logits": state.logits.view(start, stop),
            "hidden": state.hidden.view(start, stop),
            "seen": seen,
            "forced_codes": state.forced_codes.view(start, stop),
            "text_embeds": state.text_embeds.view(start, stop),
        }
        outputs = {
            "codes": state.codes.view(start, stop),
            "next_seen": seen,
            "talker_inputs": state.talker_inputs.view(start, stop),
            "lengths": state.lengths.view(start, stop),
        }
        return state.memory.call(self._session, inputs, outputs, stop)  # a window that is recorded starts at 0


def forced_logits(session: ort.InferenceSession, hidden: Floats, codes: Ints) -> Floats:
    """What the code predictor thinks of codes that it is given (teacher forcing), for measurements.

    Args:
        session: of `code_predictor.onnx`.
        hidden: the talker's hidden state `[rows, hidden]`.
        codes: whole frames `[rows, groups]`.

    Returns:
        Logits of codes 1 and up, each after the given ones before it, `[rows, groups - 1, codes]`.
    """
    (rows, groups), sizes = codes.shape, {value.name: value.shape for value in session.get_inputs()}
    _, vocab_size = sizes["talker_logits"]
    feed = {
        "controls": control_buffer([IDLE] * rows, [np.zeros(groups, np.float32)] * rows),
        "talker_logits": np.zeros((rows, vocab_size), np.float32),
        "hidden": hidden,
        "seen": np.zeros((rows, vocab_size), np.bool_),
        "forced_codes": codes,
        "text_embeds": np.zeros_like(hidden),
    }
    (logits,) = session.run(["logits"], feed, NOT_CAPTURED)
    return logits  # type: ignore[no-any-return]
