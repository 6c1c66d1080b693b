"""The draw in NumPy, as the oracle that the graphs' draw is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.engine.sampling import RowSampler
from server.graphs.frame_state import RESERVED_CODES

Floats = NDArray[np.float32]


def draw(logits: Floats, temperature: float, top_k: int, top_p: float, uniform: float) -> int:
    """Draw one code by inverting the cumulative distribution over falling probabilities.

    Args:
        logits: `[codes]`.
        temperature: above 0.
        top_k: at least 1.
        top_p: in (0, 1].
        uniform: in [0, 1); 0 gives the first of the largest logits.
    """
    top_k = min(top_k, len(logits))
    least = np.partition(logits, -top_k)[-top_k]
    candidates = np.flatnonzero(logits >= least)
    order = candidates[np.argsort(-logits[candidates], kind="stable")][:top_k]
    values = logits[order] / np.float32(temperature)
    weights = np.exp(values - values[0])
    sums = np.cumsum(weights)
    before = np.append(np.float32(0), sums[:-1])
    weights = weights[before < np.float32(top_p) * sums[-1]]
    cumulative = np.cumsum(weights)
    place = np.searchsorted(cumulative, np.float32(uniform) * cumulative[-1], side="right")
    return int(order[min(int(place), int(np.count_nonzero(weights)) - 1)])


def draw_code_0(sampler: RowSampler, logits: Floats, uniform: float, *, end: int) -> int:
    """The code 0 that a row's next frame has for `logits` `[vocab_size]`; `end` is end-of-speech."""
    sampling, vocab_size = sampler.sampling, len(logits)
    scores = logits.copy()
    seen = scores[sampler.seen]
    penalty = np.float32(sampling.repetition_penalty)
    scores[sampler.seen] = np.where(seen < 0, seen * penalty, seen / penalty)
    banned = np.zeros(vocab_size, bool)
    banned[vocab_size - RESERVED_CODES :] = True
    banned[end] = not sampler.may_end
    scores[banned] = -np.inf
    return draw(scores, sampling.temperature or 1.0, sampling.top_k or vocab_size, sampling.top_p, uniform)
