"""Comparison of floating-point arrays in proportion to their size.

Kernels of another processor, or another number of threads, add up in another order: float32 then differs by some
10^-7 of the largest summands, however large the values are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

ROUNDING = 1e-5
"""Part of the largest magnitude by which the same sums in another order may differ, through all layers of a model."""


def assert_close(found: ArrayLike, expected: ArrayLike, part: float = ROUNDING, message: str = "") -> None:
    """Check that two arrays of one shape differ nowhere by more than `part` of the largest magnitude in `expected`.

    Values that are not finite are never close.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    allowed = part * float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed, equal_nan=False, err_msg=message)
    assert np.isfinite(found).all(), message
