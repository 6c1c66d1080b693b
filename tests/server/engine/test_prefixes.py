from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.engine.bundle import OpenBundle, open_bundle
from server.engine.prefixes import PrefixCache
from server.engine.prompt import Prompt
from tests.closeness import assert_close


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
    cache.prefill(0, first)
    cache.prefill(1, second)
    assert prefilled == [first.prefix, len(first) - first.prefix, len(second) - second.prefix]


def test_a_known_prefix_changes_no_bit(bundle: OpenBundle) -> None:
    prompt = prompt_of(bundle, "The same words.")
    fresh = PrefixCache(bundle.talker).prefill(0, prompt)
    cache = PrefixCache(bundle.talker)
    cache.prefill(0, prompt_of(bundle, "Others."))
    bundle.talker.prefill(1, prompt_of(bundle, "What an old tenant of the slot left behind.").embeddings)
    known = cache.prefill(1, prompt)
    np.testing.assert_array_equal(known.logits, fresh.logits)
    np.testing.assert_array_equal(known.hidden, fresh.hidden)


def test_a_prefilled_prefix_is_a_prefilled_prompt(bundle: OpenBundle) -> None:
    prompt = prompt_of(bundle, "All at once.")
    whole = bundle.talker.prefill(0, prompt.embeddings)
    parts = PrefixCache(bundle.talker).prefill(1, prompt)
    assert_close(parts.logits, whole.logits)


def test_the_prefix_met_longest_ago_leaves(bundle: OpenBundle, prefilled: list[int]) -> None:
    prompts = [prompt_of(bundle, "Hi.", language) for language in ("english", "sichuan_dialect", "chinese")]
    room = sum(kept.nbytes for kept in bundle.talker.save(0, prompts[0].prefix)) * 2
    cache = PrefixCache(bundle.talker, max_bytes=room)
    for index in (0, 1, 0, 2):
        cache.prefill(0, prompts[index])
    prefilled.clear()
    for index in (0, 2):
        cache.prefill(0, prompts[index])
    assert len(prefilled) == 2, "both were there"
    cache.prefill(0, prompts[1])
    assert len(prefilled) == 4, "the other had left"
