"""The code predictor alone: the other codes of frames whose code 0 is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from server.engine.bundle import OpenBundle
from server.graphs.frame_state import IDLE, Controls, control_buffer


class Predicted(NamedTuple):
    """`codes` int64 `[rows, groups - 1]`; `embedding` float32 `[rows, hidden]` sums over all of a frame's codes."""

    codes: np.ndarray
    embedding: np.ndarray


GREEDY = IDLE


def predict(
    bundle: OpenBundle,
    hidden: np.ndarray,
    code_0: np.ndarray,
    uniforms: np.ndarray | None = None,
    controls: Sequence[Controls] | None = None,
) -> Predicted:
    """Fill frames in the first slots of a bundle.

    Args:
        bundle: with as many slots as rows, at least.
        hidden: the talker's hidden states `[rows, hidden]`.
        code_0: codes 0 `[rows]`.
        uniforms: `[rows, groups - 1]`; None is greedy.
        controls: one a row; None is greedy.
    """
    state, rows = bundle.talker.state, len(code_0)
    groups = bundle.manifest.sizes.code_predictor.num_code_groups
    forced = np.full((rows, groups), -1)
    forced[:, 0] = code_0
    state.forced_codes.write(0, forced)
    state.logits.write(0, np.zeros((rows, bundle.manifest.sizes.talker.vocab_size), np.float32))
    state.hidden.write(0, hidden)
    no_text = np.zeros(hidden.shape[1], np.float32)
    for slot in range(rows):
        state.put_text(slot, no_text)
    sent = np.zeros((rows, groups), np.float32)
    if uniforms is not None:
        sent[:, 1:] = uniforms
    codes = bundle.code_predictor.run(0, control_buffer(controls or [GREEDY] * rows, list(sent)))
    state.forced_codes.write(0, np.full((rows, groups), -1))
    return Predicted(codes[:, 1:], state.talker_inputs.read(0, rows)[:, 0])
