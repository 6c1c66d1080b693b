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
    """The code predictor's session; it keeps nothing between frames. That of a GPU is `device_frame.DevicePredictor`.

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
        free = np.full(uniforms.shape, -1, np.int64)
        feed = {"hidden": hidden, "code_0": code_0, "uniforms": uniforms, "forced_codes": free, **parameters._asdict()}
        codes, embedding = self._session.run(["codes", "embedding"], feed)
        return FrameCodes(codes, embedding)

    def logits(self, hidden: Floats, codes: Ints) -> Floats:
        """Teacher forcing, for measurements: what the graph thinks of codes that it is given.

        Args:
            hidden: the talker's hidden state `[rows, hidden]`.
            codes: whole frames `[rows, groups]`.

        Returns:
            Logits of codes 1 and up, each after the given ones before it, `[rows, groups - 1, codes]`.
        """
        rows, groups = codes.shape
        feed = {
            "hidden": hidden,
            "code_0": np.ascontiguousarray(codes[:, 0]),
            "uniforms": np.zeros((rows, groups - 1), np.float32),
            "forced_codes": np.ascontiguousarray(codes[:, 1:]),
            "temperature": np.ones(rows, np.float32),
            "top_k": np.ones(rows, np.int64),
            "top_p": np.ones(rows, np.float32),
        }
        (logits,) = self._session.run(["logits"], feed)
        return logits  # type: ignore[no-any-return]
