"""Both prompt layouts: what stands in the prompt, and what a row is fed behind it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from server.engine.bundle import OpenBundle
from server.engine.job import Job, Sampling
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from tests.bundles import RANDOM_BUNDLE

GREEDY = Sampling(0.0, 0, 1.0, 1.05, 0.0, 0, 1.0)
WAY = {"speaker": "serena", "language": "auto", "instruction": None}
TEXT = "Some words of a text."


@pytest.fixture(scope="module")
def bundle() -> OpenBundle:
    return open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=2)


def test_the_layouts_share_a_prefix_and_have_the_same_text(bundle: OpenBundle) -> None:
    whole = bundle.prompts.build(TEXT, **WAY)
    streaming = bundle.prompts.build(TEXT, **WAY, layout="streaming")
    assert streaming.key == whole.key
    assert len(streaming) == streaming.prefix + 1
    tokens = bundle.prompts.count_tokens(TEXT)
    assert len(whole) == whole.prefix + tokens + 2
    assert len(streaming.following) == tokens, "all but the first, and the end of the text"
    assert not len(whole.following)


@pytest.mark.parametrize("text", ["", "\n"])
def test_a_text_without_tokens_of_its_own_takes_what_stands_behind_it(bundle: OpenBundle, text: str) -> None:
    prompt = bundle.prompts.build(text, **WAY, layout="streaming")
    assert (len(prompt) - prompt.prefix, len(prompt.following)) == (1, 1)


def test_a_row_that_goes_back_is_fed_the_same_text_again(bundle: OpenBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = bundle.prompts.build(TEXT, **WAY, layout="streaming")
    fed: list[np.ndarray] = []
    put_text = bundle.talker.state.put_text

    def noted(slot: int, embedding: np.ndarray) -> None:
        fed.append(embedding)
        put_text(slot, embedding)

    monkeypatch.setattr(bundle.talker.state, "put_text", noted)
    synthesizer = Synthesizer(bundle)
    row = synthesizer.start(Job(prompt, GREEDY, 1, 40, text_tokens=9), 0)
    for _ in range(2):
        synthesizer.frame([row])
    synthesizer._frames.keep(row)
    early = row.state
    for _ in range(len(prompt.following)):
        synthesizer.frame([row])
    assert row.go_back(dataclasses.replace(early), "as this test wants it")
    for _ in range(len(prompt.following)):
        synthesizer.frame([row])
    at_once = [*prompt.following, bundle.prompts.pad, bundle.prompts.pad]
    np.testing.assert_array_equal(fed, at_once + at_once[2:])
