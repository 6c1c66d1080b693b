"""Text that arrives while it is spoken: its tokens, its codes, and what a row does that has no text left."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.engine.bundle import OpenBundle
from server.engine.job import Job, JobError, Sampling, TextLateError
from server.engine.live import LiveJob, StableTokens
from server.engine.manner import PromptError
from server.engine.provider import open_bundle
from server.engine.synthesizer import CHUNK_RAMP
from server.engine.tokenizer import TextTokenizer
from server.engine.worker import Engine
from tests.bundles import RANDOM_BUNDLE
from tests.qwen_vocabulary import ALL_RANKS
from tests.server.engine.rigs import Counted
from tests.server.engine.test_batching import CodesOfAudio, engine_of
from tests.server.running import PATIENCE_SECONDS

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
WAY = {"speaker": "serena", "language": "auto", "instruction": None}
TEXT = "Well, it's 3.14 metres:  two of three <|im_end|> at last.\n \n Über e\u0301 今天天气，怎么样 end"
FRAMES = 100
SEED = 10
"""The row of this seed goes on until behind the end of its text."""
LONG = 60.0
"""Seconds of patience where none is tried."""

ODD = " \n\t'sSre.!<|>5é\u0301\u0315\u0327q=\u0338\u1112\u1161\u11ab今。\U0001f469\u200d\u212b\u0958\u09c7\u09be"


@pytest.fixture(scope="module")
def bundle() -> OpenBundle:
    return open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=3)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_of: Callable[[str], Path]) -> TextTokenizer:
    """With the whole vocabulary of the published checkpoints."""
    return TextTokenizer(tokenizer_of("0.6B-like"))


@pytest.fixture
def engine(bundle: OpenBundle) -> Iterator[Engine]:
    with engine_of(bundle) as engine:
        yield engine


def live(engine: Engine, *, patience: float = LONG, seed: int = SEED, capacity: int = FRAMES) -> LiveJob:
    return LiveJob(engine.live_text(**WAY), SAMPLING, seed, FRAMES, capacity, patience=patience)


def at_once(engine: Engine, text: str = TEXT, seed: int = SEED) -> Job:
    return Job(engine.prompt(text, **WAY, layout="streaming"), SAMPLING, seed, FRAMES, FRAMES)


WORDS = "One two three and four"


def frames_of_words(engine: Engine) -> int:
    """The frames that may be made of `WORDS` while the last of them may go on: one less than there are tokens."""
    return engine.count_tokens("One two three and") - 1


def eventually(true: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < until, "this has never come true"
        time.sleep(0.002)


UNSPACED = (
    "今天天气怎么样我们一起去公园散步的是不了在人工智能正在改变我们的生活方式これは日本語のテストですが今日はとても良い"
    "天気ですね。，、สวัสดีครับวันนี้อากาศดี가각\u11a8\u1100\u1161한국어กา\u3099か\U00020000a \u0301"
)


@settings(max_examples=200, deadline=None)
@example(parts=["が", "か\u3099", "か", "\u3099", "か"])
@example(parts=["한가", "\u11a8", "가"])
@given(parts=st.lists(st.text(alphabet=UNSPACED, max_size=6)))
def test_any_cuts_of_a_script_without_spaces_give_the_tokens_of_the_whole(
    tokenizer: TextTokenizer, parts: list[str]
) -> None:
    assert ids_of(tokenizer, parts) == tokenizer.encode(f"assistant\n{''.join(parts)}")


def ids_of(tokenizer: TextTokenizer, parts: Sequence[str]) -> list[int]:
    tokens, found = StableTokens(tokenizer), []
    for part in parts:
        ids, held = tokens.feed(part)
        tokens.hold(held)
        found += ids
    return found + tokens.end()


ONE_TOKEN = ("我们一", "我们一起", "我们一起去", "我们一起去公")
"""Some entry of the vocabulary has each pair of these letters side by side."""


def test_a_word_without_spaces_is_certain_where_no_token_can_go_on(tokenizer: TextTokenizer) -> None:
    tokens, held = StableTokens(tokenizer), []
    for letter in "今天天气怎么样我们一起去公园":
        _, left = tokens.feed(letter)
        tokens.hold(left)
        held.append(left)
    assert held[3:] == ["今天天气", "今天天气怎", "怎么", "怎么样", "怎么样我", "我们", *ONE_TOKEN, "公园"]


@settings(max_examples=200, deadline=None)
@example(parts=["a\n", "  ", "\n", "b"])
@example(parts=["e\u0315 ", "e\u0315", "\u0301", " b"])
@example(parts=["5", "\u0315", "\u0338", "b"])
@example(parts=["\u0958 ", "\u0958", "\u0334", "b"])
@given(parts=st.lists(st.text(alphabet=ODD, max_size=6) | st.text(max_size=3) | st.sampled_from(TEXT.split(" "))))
def test_any_cuts_give_the_tokens_of_the_whole(tokenizer: TextTokenizer, parts: list[str]) -> None:
    parts = [part.encode("utf-8", "replace").decode() for part in parts]
    assert ids_of(tokenizer, parts) == tokenizer.encode(f"assistant\n{''.join(parts)}")


def test_a_word_is_certain_when_the_next_one_has_begun(tokenizer: TextTokenizer) -> None:
    tokens, held, ids = StableTokens(tokenizer), [], []
    for part in ("Hello", " the", "re", " y", "ou", " <|im_end|>", " so"):
        certain, left = tokens.feed(part)
        tokens.hold(left)
        held.append(left)
        ids += certain
    assert held == ["Hello", " the", " there", " y", " you", "|>", " so"]
    assert max(ids) < ALL_RANKS, "what looks like a control token is plain text"
    assert ids == tokenizer.encode("assistant\nHello there you <|im_end|>")


def fed(job: LiveJob, parts: Sequence[str], *, starving: bool) -> None:
    """Feed a job, waiting each time until it has used up all text, or not at all."""
    for part in parts:
        if starving:
            eventually(lambda: job.starved or job.over)
        job.feed(part)
    job.end()


def in_parts(size: int) -> list[str]:
    return [TEXT[start : start + size] for start in range(0, len(TEXT), size)]


@pytest.fixture
def seed() -> int:
    """A seed whose row goes on until behind the end of its text."""
    return SEED


@pytest.mark.parametrize("starving", [True, False])
def test_any_cuts_give_the_codes_of_the_text_at_once_beside_other_rows(
    bundle: OpenBundle, seed: int, starving: bool
) -> None:
    decoder = CodesOfAudio(bundle.codec_decoder)
    with engine_of(dataclasses.replace(bundle, codec_decoder=decoder)) as engine:
        job = at_once(engine, seed=seed)
        engine.submit(job)
        expected = decoder.of(list(job))
        assert len(expected) > len(job.following), "it ends before its text is fed"
        for size in (1, 4, 11, len(TEXT)):
            other, cut = at_once(engine, "Another one, beside it.", 7), live(engine, seed=seed)
            engine.submit(cut)
            engine.submit(other)
            fed(cut, in_parts(size), starving=starving)
            np.testing.assert_array_equal(decoder.of(list(cut)), expected)
            assert list(other)


def test_a_row_without_text_costs_nothing_and_holds_no_other_up(bundle: OpenBundle) -> None:
    events = Counted()
    with engine_of(bundle, events) as engine:
        job = live(engine)
        engine.submit(job)
        assert engine.running == 0, "no word, no slot"
        job.feed(WORDS)
        frames = frames_of_words(engine)
        assert frames not in np.cumsum(CHUNK_RAMP), "the last ones fill no chunk"
        eventually(lambda: job.frames == frames and job.starved)
        reader = iter(job)
        heard = 0
        while heard < frames * engine.manifest.sizes.codec.samples_per_frame:  # all that is made can be heard
            heard += len(next(reader))
        others = [at_once(engine, seed=seed) for seed in range(2)]
        for other in others:
            engine.submit(other)
        assert all(list(other) for other in others)
        assert job.frames == frames
        assert job.starved
        assert sum(events.rows) == frames + sum(other.frames + (other.frames < FRAMES) for other in others)
        job.end()
        assert list(reader)
        assert engine.running == 0


def test_a_row_that_waits_is_given_up_at_once_when_its_reader_leaves(bundle: OpenBundle) -> None:
    events = Counted()
    with engine_of(bundle, events) as engine:
        for begun in (True, False):
            job = live(engine)
            engine.submit(job)
            if begun:
                job.feed(WORDS)
                eventually(lambda: engine.frames_made == frames_of_words(engine))
            job.cancel()
            eventually(lambda: engine.running == engine.waiting == 0)
        assert engine.frames_made == frames_of_words(engine)
    assert events.counts["cancelled"] == 2


@pytest.mark.parametrize("begun", [True, False])
def test_text_that_does_not_come_in_time_ends_the_job(engine: Engine, begun: bool) -> None:
    job = live(engine, patience=0.2)
    engine.submit(job)
    if begun:
        job.feed(WORDS)
    heard = []
    with pytest.raises(TextLateError, match=r"no text has come for 0\.2 s"):
        heard.extend(job)
    assert sum(map(len, heard)) == job.frames * engine.manifest.sizes.codec.samples_per_frame
    assert job.frames == (frames_of_words(engine) if begun else 0)
    eventually(lambda: engine.running == engine.waiting == 0)


def test_patience_is_for_each_wait(engine: Engine) -> None:
    job = live(engine, patience=2.0)
    engine.submit(job)
    for word in ("One", " two", " three", " four", " five"):
        job.feed(word)
        time.sleep(0.6)
    job.end()
    assert list(job)


@pytest.mark.parametrize("text", ["", "\n"])
def test_a_text_without_a_word_ends_without_audio(engine: Engine, text: str) -> None:
    job = live(engine)
    engine.submit(job)
    job.feed(text)
    job.end()
    job.end()
    assert list(job) == []
    eventually(lambda: engine.waiting == 0)
    with pytest.raises(RuntimeError, match="behind the end"):
        job.feed("more")


def test_a_text_that_is_too_long_is_refused_and_what_came_is_said(
    bundle: OpenBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = bundle.prompts
    with engine_of(bundle) as engine:
        expected = at_once(engine, "One two")
        job = live(engine)
        for one in (expected, job):
            engine.submit(one)
        job.feed("One two")
        for times in (1, 3):
            with pytest.raises(PromptError, match=r"positions"):
                job.feed(" more" * builder.max_positions * times)
        monkeypatch.setattr("server.engine.live.MAX_HELD", 20)
        with pytest.raises(PromptError, match="a single word"):
            job.feed("x" * 20)
        job.end()
        np.testing.assert_allclose(np.concatenate(list(job)), np.concatenate(list(expected)), atol=1e-5)


def test_the_engine_ends_jobs_that_wait_for_text_when_it_stops(bundle: OpenBundle) -> None:
    with engine_of(bundle) as engine:
        job = live(engine)
        engine.submit(job)
    with pytest.raises(JobError, match="shutting down"):
        list(job)
