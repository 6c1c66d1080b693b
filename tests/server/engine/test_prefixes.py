from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.engine.bundle import OpenBundle
from server.engine.job import Job, Sampling
from server.engine.prefill import SLICE_POSITIONS, Prefill
from server.engine.prefixes import PrefixCache
from server.engine.prompt import Prompt
from server.engine.provider import open_bundle
from server.graphs.talker import TalkerOutput
from tests.closeness import assert_close

GREEDY = Sampling(0.0, 0, 1.0, 1.0, 0.0, 0, 1.0)


@pytest.fixture(scope="module")
def bundle(bundle_of: Callable[[str], Path]) -> OpenBundle:
    return open_bundle(bundle_of("tiny"), provider="cpu", threads=1, slots=2)


@pytest.fixture
def prefilled(bundle: OpenBundle, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of what the talker is made to prefill."""
    lengths: list[int] = []
    prefill = bundle.talker.prefill

    def noted(slot: int, inputs_embeds: np.ndarray, past: int = 0):
        lengths.append(len(inputs_embeds))
        return prefill(slot, inputs_embeds, past)

    monkeypatch.setattr(bundle.talker, "prefill", noted)
    return lengths


def prompt_of(bundle: OpenBundle, text: str, language: str = "english") -> Prompt:
    speaker = next(iter(bundle.manifest.speakers))
    return bundle.prompts.build(text, speaker=speaker, language=language, instruction=None)


def prefill(cache: PrefixCache, slot: int, prompt: Prompt) -> TalkerOutput:
    """All slices of a prompt, one after the other."""
    slices = Prefill(Job(prompt, GREEDY, seed=1, max_frames=1), slot)
    while slices.remaining:
        output = cache.advance(slices)
    return output


def test_the_prefix_is_what_texts_share(bundle: OpenBundle) -> None:
    one, other = prompt_of(bundle, "One."), prompt_of(bundle, "Something else altogether.")
    assert one.prefix == other.prefix
    np.testing.assert_array_equal(one.embeddings[: one.prefix], other.embeddings[: other.prefix])
    assert not np.array_equal(one.embeddings[one.prefix], other.embeddings[other.prefix])
    other_way = prompt_of(bundle, "One.", language="sichuan_dialect")
    assert not np.array_equal(other_way.embeddings[: other_way.prefix], one.embeddings[: one.prefix])


def test_a_known_prefix_is_not_prefilled_again(bundle: OpenBundle, prefilled: list[int]) -> None:
    cache = PrefixCache(bundle.talker)
    first, second = prompt_of(bundle, "One."), prompt_of(bundle, "Two, and some more.")
    prefill(cache, 0, first)
    prefill(cache, 1, second)
    assert prefilled == [first.prefix, len(first) - first.prefix, len(second) - second.prefix]


def test_a_known_prefix_changes_no_bit(bundle: OpenBundle) -> None:
    prompt = prompt_of(bundle, "The same words.")
    fresh = prefill(PrefixCache(bundle.talker), 0, prompt)
    cache = PrefixCache(bundle.talker)
    prefill(cache, 0, prompt_of(bundle, "Others."))
    bundle.talker.prefill(1, prompt_of(bundle, "What an old tenant of the slot left behind.").embeddings)
    known = prefill(cache, 1, prompt)
    np.testing.assert_array_equal(known.logits, fresh.logits)
    np.testing.assert_array_equal(known.hidden, fresh.hidden)


def test_a_prefilled_prefix_is_a_prefilled_prompt(bundle: OpenBundle) -> None:
    prompt = prompt_of(bundle, "All at once.")
    whole = bundle.talker.prefill(0, prompt.embeddings)
    parts = prefill(PrefixCache(bundle.talker), 1, prompt)
    assert_close(parts.logits, whole.logits)


def test_the_prefix_met_longest_ago_leaves(bundle: OpenBundle, prefilled: list[int]) -> None:
    prompts = [prompt_of(bundle, "Hi.", language) for language in ("english", "sichuan_dialect", "chinese")]
    room = sum(kept.nbytes for kept in bundle.talker.save(0, prompts[0].prefix)) * 2
    cache = PrefixCache(bundle.talker, max_bytes=room)
    for index in (0, 1, 0, 2):
        prefill(cache, 0, prompts[index])
    prefilled.clear()
    for index in (0, 2):
        prefill(cache, 0, prompts[index])
    assert len(prefilled) == 2, "both were there"
    prefill(cache, 0, prompts[1])
    assert len(prefilled) == 4, "the other had left"


def test_a_long_prefix_makes_no_other_one_leave(bundle: OpenBundle, prefilled: list[int]) -> None:
    short = prompt_of(bundle, "Hi.")
    long = Prompt(np.concatenate([short.embeddings] * 4), prefix=3 * len(short))
    cache = PrefixCache(bundle.talker, max_bytes=2 * sum(kept.nbytes for kept in bundle.talker.save(0, short.prefix)))
    prefill(cache, 0, short)
    prefill(cache, 0, long)
    prefilled.clear()
    prefill(cache, 0, short)
    assert prefilled == [len(short) - short.prefix], "its prefix was still there"


def test_a_long_prompt_is_cut_in_the_same_places_each_time(bundle: OpenBundle, prefilled: list[int]) -> None:
    unit = prompt_of(bundle, "A sentence of some length, said again and again.").embeddings
    long = Prompt(np.concatenate([unit] * (4 * SLICE_POSITIONS // len(unit))), prefix=SLICE_POSITIONS + 10)
    cache = PrefixCache(bundle.talker)
    prefill(cache, 0, long)
    rest = len(long) - long.prefix
    after = [SLICE_POSITIONS] * (rest // SLICE_POSITIONS) + [rest % SLICE_POSITIONS]
    assert prefilled == [SLICE_POSITIONS, 10, *after]
    prefilled.clear()
    prefill(cache, 1, long)
    assert prefilled == after
