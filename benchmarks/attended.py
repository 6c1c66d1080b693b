"""What a talker looks back over in measurements: memory that was never written to is read in no time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.graphs.talker import Talker


def fill_caches(talker: Talker, rows: int, positions: int) -> None:
    """Write random values to the first `positions` of the KV caches of the first `rows` slots.

    Pages that nobody has written to are all one page of zeros, which stays in the processor's caches: attention over
    them takes less time than over what somebody has said.
    """
    random = np.random.default_rng(0)
    for slot in range(rows):
        kept = talker.save(slot, positions)
        talker.restore(slot, [_like(one, random) for one in kept])


def _like(values: NDArray, random: np.random.Generator) -> NDArray:
    """Random values of the same type and shape."""
    drawn = random.standard_normal(values.shape, np.float32)
    if values.dtype == np.int8:
        drawn = np.clip(30 * drawn, -127, 127)  # scales are some hundredths
    return drawn.astype(values.dtype)
