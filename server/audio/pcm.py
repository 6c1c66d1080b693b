"""Samples: float32 in the engine, signed 16-bit little-endian on the wire."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def to_s16le(samples: NDArray[np.float32]) -> bytes:
    """Turn float32 samples `[n]` in -1 to 1 into 16-bit PCM; louder ones are clipped.

    Raises:
        ValueError: a sample is not a number, which no encoding may hide.
    """
    if not np.isfinite(samples).all():
        raise ValueError("the audio holds samples that are not finite numbers")
    scaled: NDArray[np.float32] = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0)
    return scaled.astype("<i2").tobytes()
