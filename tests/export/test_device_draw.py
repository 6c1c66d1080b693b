"""The draw of a GPU's graphs: the oracle's codes, from sums that are added up in blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graphs.cuda.frame_unrolled import draw_of_all, running_sums
from tests.host_draw import draw

LARGEST_UNIFORM = 1 - 2**-24


def column(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)[:, None]


def drawn(logits: np.ndarray, temperature: float, top_k: int, top_p: float, uniform: float) -> int:
    """The second row's code, beside another row."""
    codes = logits.size
    return int(
        draw_of_all(
            torch.from_numpy(np.stack([-logits, logits])),
            codes,
            column(0.7, temperature),
            column(codes - 1, top_k - 1, dtype=torch.int64),
            column(0.9, top_p),
            column(0.5, uniform),
        )[1, 0]
    )


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    codes=st.sampled_from([3, 64, 65, 2048, 2049]),
    scale=st.floats(0.1, 10.0),
    temperature=st.floats(0.1, 2.0),
    top_k=st.integers(1, 100),
    top_p=st.floats(0.05, 1.0),
)
def test_a_code_is_what_the_oracle_draws(
    seed: int, codes: int, scale: float, temperature: float, top_k: int, top_p: float
) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(scale=scale, size=codes).astype(np.float32)
    top_k, uniform = min(top_k, codes), float(random.random(dtype=np.float32))
    assert drawn(logits, temperature, top_k, top_p, uniform) == draw(logits, temperature, top_k, top_p, uniform)


@pytest.mark.parametrize("codes", [65, 2048, 2049])
def test_among_all_codes(codes: int) -> None:
    random = np.random.default_rng(codes)
    for _ in range(100):
        logits = random.normal(scale=2, size=codes).astype(np.float32)
        uniform = float(random.random(dtype=np.float32))
        assert drawn(logits, 0.9, codes, 1.0, uniform) == draw(logits, 0.9, codes, 1.0, uniform)


@pytest.mark.parametrize("uniform", [0.0, LARGEST_UNIFORM])
@pytest.mark.parametrize("codes", [3, 64, 2048, 2049])
def test_the_ends_of_the_uniforms(codes: int, uniform: float) -> None:
    """The largest logit, the first of equal ones, at one end; a code that is kept at the other."""
    logits = np.linspace(2, 0, codes, dtype=np.float32)
    logits[1] = logits[0]
    for top_k, top_p in ((1, 1.0), (2, 0.01), (codes, 1.0), (codes, 0.5), (2, 1.0)):
        found = drawn(logits, 1.0, top_k, top_p, uniform)
        assert found == 0 if not uniform else found < top_k
    assert drawn(logits, 1.0, 2, 1.0, LARGEST_UNIFORM) == 1
    logits[codes - 1] = -np.inf
    assert drawn(logits, 1.0, codes, 1.0, uniform) < codes - 1


@pytest.mark.parametrize("size", [1, 64, 100, 2048, 2049])
def test_running_sums(size: int) -> None:
    values = np.random.default_rng(size).random((3, size), dtype=np.float32)
    sums = running_sums(torch.from_numpy(values), size).numpy()
    np.testing.assert_allclose(sums[:, :size], values.cumsum(1, dtype=np.float64), rtol=1e-6)
    assert (np.diff(sums, axis=1) >= 0).all()
    assert sums.shape[1] % 64 == 0
    np.testing.assert_array_equal(sums[:, size:], np.repeat(sums[:, size - 1 : size], sums.shape[1] - size, axis=1))
