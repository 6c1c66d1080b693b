"""A KV cache in 8 bits beside one in float32: nearly the same codes, and the same behaviour of rows.

What the engine's own tests say of float32 caches is said here of a bundle whose cache is in 8 bits: they run again with
the fixtures of this module.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from server.engine.bundle import OpenBundle
from server.engine.job import Job
from server.engine.provider import open_bundle
from server.graphs.caches import cache_bytes
from server.manifest import read_manifest
from tests.bundles import RANDOM_BUNDLE, TINY_BUNDLE
from tests.int8_cache import with_float32_cache, with_int8_cache
from tests.parity.test_official import GREEDY, speak
from tests.server.engine.test_batching import (
    test_a_long_prompt_holds_up_neither_rows_nor_short_prompts,
    test_a_row_that_is_not_read_costs_no_call_and_loses_nothing,
    test_staggered_rows_have_the_codes_they_have_alone,
)
from tests.server.engine.test_live import test_any_cuts_give_the_codes_of_the_text_at_once_beside_other_rows
from tests.server.engine.test_prefixes import (
    prefilled,
    test_a_known_prefix_changes_no_bit,
    test_a_known_prefix_is_not_prefilled_again,
    test_a_prefilled_prefix_is_a_prefilled_prompt,
    test_the_prefix_met_longest_ago_leaves,
)
from tests.server.engine.test_worker import test_rows_together_sound_as_alone
from tests.server.graphs.test_caches import (
    at_once,
    test_a_row_in_a_slot_that_was_given_back_is_as_ever,
    test_a_row_that_memory_is_too_small_for_harms_no_other,
    test_little_is_taken_at_the_start,
    test_rows_are_the_same_in_memory_that_grows,
    test_what_was_saved_finds_room,
)
from tests.server.graphs.test_talker import test_memory_is_that_of_the_graphs_caches

__all__ = [
    "at_once",
    "prefilled",
    "test_a_known_prefix_changes_no_bit",
    "test_a_known_prefix_is_not_prefilled_again",
    "test_a_long_prompt_holds_up_neither_rows_nor_short_prompts",
    "test_a_prefilled_prefix_is_a_prefilled_prompt",
    "test_a_row_in_a_slot_that_was_given_back_is_as_ever",
    "test_a_row_that_is_not_read_costs_no_call_and_loses_nothing",
    "test_a_row_that_memory_is_too_small_for_harms_no_other",
    "test_any_cuts_give_the_codes_of_the_text_at_once_beside_other_rows",
    "test_little_is_taken_at_the_start",
    "test_memory_is_that_of_the_graphs_caches",
    "test_rows_are_the_same_in_memory_that_grows",
    "test_rows_together_sound_as_alone",
    "test_staggered_rows_have_the_codes_they_have_alone",
    "test_the_prefix_met_longest_ago_leaves",
    "test_what_was_saved_finds_room",
]
SLOTS = 3
TEXTS = ("The quick brown fox jumps over the lazy dog.", "What time is it?", "Seven boats left before noon.")
CLOSE = 0.02
"""Part of the largest logit by which a cache in 8 bits may change one, behind the same positions."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of random weights, with a cache in 8 bits."""
    place = tmp_path_factory.mktemp("int8")
    return with_int8_cache(with_float32_cache(RANDOM_BUNDLE, place / "float32"), place / RANDOM_BUNDLE.name)


@pytest.fixture(scope="module")
def bundle(folder: Path) -> OpenBundle:
    return open_bundle(folder, provider="cpu", threads=1, slots=4)


@pytest.fixture
def seed() -> int:
    """A seed whose row goes on until behind the end of its text."""
    return 16


@pytest.fixture(scope="module", params=[RANDOM_BUNDLE, TINY_BUNDLE], ids=lambda folder: folder.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenBundle, OpenBundle]:
    """A committed bundle with a float32 cache, and the same with a cache in 8 bits."""
    place = tmp_path_factory.mktemp("pair")
    wide = with_float32_cache(request.param, place / "float32")
    narrow = with_int8_cache(wide, place / "int8")
    plain, small = (open_bundle(folder, provider="cpu", threads=1, slots=SLOTS) for folder in (wide, narrow))
    return plain, small


def test_a_float32_cache_comes_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    """So that these tests are about the same, whichever cache the committed bundles have."""
    there = with_float32_cache(RANDOM_BUNDLE, tmp_path / "there")
    again = with_float32_cache(folder, tmp_path / "again")
    manifests = [read_manifest(one) for one in (there, again)]
    assert [one.kv_cache for one in manifests] == ["float32"] * 2
    models = [onnx.load(one / "talker.onnx") for one in (there, again)]
    assert models[0].graph == models[1].graph


def test_it_takes_a_quarter_of_the_memory(pair: tuple[OpenBundle, OpenBundle]) -> None:
    plain, small = pair
    assert (plain.manifest.kv_cache, small.manifest.kv_cache) == ("float32", "int8")
    assert (plain.manifest.format, small.manifest.format) == (2, 3)  # of those published here
    assert 4 * cache_bytes(small.manifest, SLOTS) == cache_bytes(plain.manifest, SLOTS)
    for bundle in pair:
        bundle.talker.prefill(
            0, bundle.prompts.build(TEXTS[0], speaker=None, language="auto", instruction=None).embeddings
        )
    saved = [sum(kept.nbytes for kept in bundle.talker.save(0, 10)) for bundle in pair]
    assert saved[0] == 4 * saved[1]


def test_logits_are_close(pair: tuple[OpenBundle, OpenBundle]) -> None:
    """Of prompts prefilled as a whole and in slices, and of steps behind them in a batch of several lengths."""
    plain, small = pair
    prompts = [plain.prompts.build(text, speaker=None, language="auto", instruction=None).embeddings for text in TEXTS]
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    for slot, prompt in enumerate(prompts):
        expected, found = (bundle.talker.prefill(slot, prompt) for bundle in pair)
        near(found.logits, expected.logits)
        small.talker.prefill(slot, prompt[:6])
        again = small.talker.prefill(slot, prompt[6:], past=6)
        near(again.logits, found.logits, CLOSE / 10)
    steps = np.random.default_rng(0).normal(size=(4, SLOTS, plain.talker.sizes.hidden_size)).astype(np.float32)
    steps *= np.abs(prompts[0]).mean()
    for step in steps:
        expected, found = (bundle.talker.decode(0, step, lengths) for bundle in pair)
        near(found.logits, expected.logits)
        alone = [small.talker.decode(slot, step[slot : slot + 1], lengths[slot : slot + 1]) for slot in range(SLOTS)]
        near(np.concatenate([one.logits for one in alone]), found.logits, CLOSE / 2)
        lengths = lengths + np.int32(1)


def near(found: np.ndarray, expected: np.ndarray, part: float = CLOSE) -> None:
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < part * np.abs(expected).max()


def test_what_it_says_begins_as_with_float32(pair: tuple[OpenBundle, OpenBundle]) -> None:
    """Greedily, each fed its own codes: the first frames, before a code that nearly was another one takes over."""
    frames, same = 24, []
    for text in TEXTS:
        codes = []
        for bundle in pair:
            speaker = next(iter(bundle.manifest.speakers))
            prompt = bundle.prompts.build(text, speaker=speaker, language="english", instruction=None)
            codes.append(speak(bundle, Job(prompt, GREEDY, seed=0, max_frames=frames))[0])
        length = min(map(len, codes))
        equal = (codes[0][:length] == codes[1][:length]).all(axis=1)
        same.append(length if equal.all() else int(equal.argmin()))
    assert max(same) >= 8, f"{same} frames"


def test_a_bundle_that_does_not_say_has_a_float32_cache() -> None:
    manifest = read_manifest(RANDOM_BUNDLE)
    talker = manifest.graphs["talker"].model_copy(update={"inputs": ()})
    assert manifest.model_copy(update={"graphs": manifest.graphs | {"talker": talker}}).kv_cache == "float32"
