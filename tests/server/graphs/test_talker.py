"""The talker's caches: how much memory they take, and that rows can change places."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from server.engine.bundle import OpenBundle, open_bundle
from server.graphs.talker import cache_bytes
from tests.bundles import RANDOM_BUNDLE

SLOTS = 3


@pytest.fixture(scope="module")
def bundle() -> OpenBundle:
    return open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=SLOTS)


def test_memory_is_that_of_the_graphs_caches(bundle: OpenBundle) -> None:
    sizes = bundle.manifest.sizes.talker
    specs = [spec for spec in bundle.manifest.graphs["talker"].inputs if spec.name.startswith("past.")]
    assert {len(spec.shape) for spec in specs} == {4}
    positions = [prod(length for length in spec.shape if isinstance(length, int)) for spec in specs]
    assert cache_bytes(sizes, SLOTS) == 4 * SLOTS * sizes.max_positions * sum(positions)


def test_memory_of_the_real_sizes(bundle: OpenBundle) -> None:
    """0.6B: 2 * 28 layers * 8 heads * 128 numbers of 4 bytes make 224 KiB a position."""
    sizes = bundle.manifest.sizes.talker
    real = sizes.model_copy(update={"num_layers": 28, "num_kv_heads": 8, "head_dim": 128, "max_positions": 8192})
    assert cache_bytes(real, 8) == 8 * 8192 * 224 * 1024
    assert cache_bytes(real.model_copy(update={"head_dim": 120}), 8) == cache_bytes(real, 8), "padded for the kernel"


def test_rows_that_change_places_go_on_as_before(bundle: OpenBundle) -> None:
    random, talker = np.random.default_rng(0), bundle.talker
    size = talker.sizes.hidden_size
    prompts = [random.normal(size=(length, size)).astype(np.float32) for length in (9, 4)]
    step = random.normal(size=(2, size)).astype(np.float32)
    for slot, prompt in enumerate(prompts):
        talker.prefill(slot, prompt)
    expected = talker.decode(0, step, np.array([9, 4], np.int32))
    for slot, prompt in enumerate(prompts):
        talker.prefill(slot, prompt)
    talker.swap(0, 1, 9)
    talker.swap(0, 2, 4)  # to a slot that is free
    found = talker.decode(1, step, np.array([9, 4], np.int32))
    np.testing.assert_array_equal(found.logits, expected.logits)
