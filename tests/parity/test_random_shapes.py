"""Checkpoints whose sizes are drawn by a seed: each is converted, and says what the official package says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.oracle import assert_official
from tests.random_shapes import REPORTED, Agreement, compare, random_shape

SEEDS = range(8)
WAVEFORM = 1e-3
"""Part of its peak by which a waveform may differ. Where states reach several hundred, the snake activations take the
sine of such numbers: PyTorch's own float32 is then 2e-4 away from its float64."""


def check(found: Agreement) -> None:
    """The codes are the official ones, and the waveform follows."""
    # Greedy speech of random weights may soon go in circles, which are of some frames at least.
    assert len(np.unique(found.codes, axis=0)) > 2, "one frame for ever would prove nothing"
    assert_official(found.codes, found.official)
    assert 0.05 < found.loudest < 1, "silence and clipped sound would prove nothing"
    assert found.waveform < WAVEFORM


@pytest.mark.parametrize("seed", SEEDS)
def test_codes_and_waveform_are_the_official_ones(seed: int, tmp_path: Path) -> None:
    check(compare(random_shape(seed), tmp_path, newer=seed % 2 == 1, seed=seed))


def test_large_states_are_no_fault(tmp_path: Path) -> None:
    check(compare(REPORTED, tmp_path, newer=False))


def test_the_seeds_draw_what_differs_between_checkpoints() -> None:
    shapes = [random_shape(seed) for seed in SEEDS]
    assert {shape.model_type for shape in shapes} == {"custom_voice", "voice_design"}
    assert len({shape.dtype for shape in shapes}) == 2
    assert {shape.shards > 1 for shape in shapes} == {False, True}
    assert any(shape.talker.heads % 2 for shape in shapes)
    assert any(1 < shape.talker.kv_heads < shape.talker.heads for shape in shapes)
    assert any(shape.codec.stack.kv_heads < shape.codec.stack.heads for shape in shapes)
    assert {shape.talker.hidden == shape.predictor.hidden for shape in shapes} == {False, True}
    assert {shape.gains.blocks for shape in shapes} == {0.5, 0.7, 1.0}
    assert len({shape.code_groups for shape in shapes}) > 4
    assert len({shape.codec.samples_per_frame for shape in shapes}) > 3
