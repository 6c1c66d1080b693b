"""Runs the code predictor graph: codes 1 and up of one frame, in one call."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class DrawParameters(NamedTuple):
    """How each row's codes are drawn: `temperature`, `top_p` float32 and `top_k` int64, all `[rows]`.

    `temperature` above 0, `top_k` from 1 to the number of codes, `top_p` in (0, 1]. Greedy is a uniform of 0.
    """

    temperature: Floats
    top_k: Ints
    top_p: Floats


class FrameCodes(NamedTuple):
    """`codes` int64 `[rows, groups - 1]`; `embedding` float32 `[rows, hidden]` sums over all of a frame's codes."""

    codes: Ints
    embedding: Floats


class CodePredictor:
    """The code predictor's session; it keeps nothing between frames.

    Args:
        session: of `code_predictor.onnx`.
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def run(self, hidden: Floats, code_0: Ints, uniforms: Floats, parameters: DrawParameters) -> FrameCodes:
        """Fill the frame.

        Args:
            hidden: the talker's hidden state `[rows, hidden]`.
            code_0: the talker's code `[rows]`.
            uniforms: one number in [0, 1) a code, `[rows, groups - 1]`.
            parameters: how to draw.
        """
        feed = {"hidden": hidden, "code_0": code_0, "uniforms": uniforms, **parameters._asdict()}
        codes, embedding = self._session.run(["codes", "embedding"], feed)
        return FrameCodes(codes, embedding)

    def run_with_logits(
        self, hidden: Floats, code_0: Ints, uniforms: Floats, parameters: DrawParameters
    ) -> tuple[Ints, Floats]:
        """As `run`, for measurements: `codes` and the `logits` they were drawn from, `[rows, groups - 1, codes]`."""
        feed = {"hidden": hidden, "code_0": code_0, "uniforms": uniforms, **parameters._asdict()}
        codes, logits = self._session.run(["codes", "logits"], feed)
        return codes, logits
