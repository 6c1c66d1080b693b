"""The rule by which greedy codes count as the official ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.oracle import Choices, Official, assert_official

CODES = np.array([[1, 2], [3, 4]])


def official(lead: float) -> Choices:
    """Choices that are clear, but for code 0 of frame 1, which leads by that much."""
    return Choices(CODES, np.array([[0.5, 0.5], [lead, 0.5]]))


def test_a_tie_may_fall_either_way_and_what_follows_it_too() -> None:
    assert_official(CODES, official(0.5))
    assert_official(np.array([[1, 2], [7, 8]]), official(1e-7))


@pytest.mark.parametrize(
    ("codes", "lead"),
    [([[1, 2], [7, 4]], 1e-3), ([[1, 2], [3, 8]], 1e-7), ([[7, 2], [3, 4]], 1e-7), ([[1, 9], [8, 8]], 1e-7)],
)
def test_a_clear_choice_must_be_the_same(codes: list[list[int]], lead: float) -> None:
    with pytest.raises(AssertionError, match=r"code \d of frame \d is \d instead of \d, which leads by"):
        assert_official(np.array(codes), official(lead))


def test_fewer_frames_are_not_the_same() -> None:
    with pytest.raises(AssertionError):
        assert_official(CODES[:1], official(0.5))


def test_each_margin_is_that_of_its_code(checkpoint_of: Callable[[str], Path]) -> None:
    """A head of zeros scores all codes alike: those of its codebook have no lead, all others have one."""
    model = Official(checkpoint_of("tiny"))
    model.code_predictor.lm_head[2].weight.data.zero_()
    codes, margins = model.choices("Hello there.", speaker="ryan", frames=5)
    assert margins.shape == codes.shape == (5, 16)
    assert (margins[:, 3] == 0).all()
    assert (np.delete(margins, 3, axis=1) > 0).all()
