"""Samples: float32 while audio is made, signed 16-bit little-endian in files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
"""Mono audio `[n]`, in -1 to 1."""


def to_s16le(samples: Samples) -> bytes:
    """Turn float32 samples `[n]` in -1 to 1 into 16-bit PCM; louder ones are clipped.

    Raises:
        ValueError: a sample is not a number, which no encoding may hide.
    """
    if not np.isfinite(samples).all():
        raise ValueError("the audio holds samples that are not finite numbers")
    scaled: Samples = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0)
    return scaled.astype("<i2").tobytes()


def from_s16le(data: bytes) -> Samples:
    """Turn 16-bit PCM into samples `[n]`, of which `to_s16le` makes the same bytes; -32768, which it never makes, is
    clipped by it.

    Raises:
        ValueError: half a sample is left.
    """
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32767)
