"""Rows that run away: held back, tried again, and given up; on bundles built to do so, and on one that can be saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from server.engine.bundle import OpenBundle
from server.engine.guard import ALIKE_HOLD, SILENT_HOLD, SILENT_LIMIT, SLOW_FLOOR
from server.engine.holdback import MAX_RETRIES
from server.engine.job import Job, RunawayError, Sampling
from server.engine.live import LiveJob
from server.engine.provider import open_bundle
from server.engine.synthesizer import CHUNK_RAMP, Synthesizer
from server.engine.worker import Engine
from tests.bundles import RANDOM_BUNDLE
from tests.closeness import assert_close
from tests.rigged import Rig, rigged_bundle
from tests.server.engine.rigs import Counted, RecordingTalker, StickyPredictor, Wrapped, sticky_is_silent

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
GREEDY = dataclasses.replace(SAMPLING, temperature=0.0, predictor_temperature=0.0)
TOKENS = 1
SEEDS = (4, 5, 14)
"""Of rows that fall into the hole of `sticky`: some get out of it, some do not."""


@pytest.fixture(scope="module")
def rigged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Rig], OpenBundle]:
    @cache
    def build(rig: Rig) -> OpenBundle:
        folder: Path = rigged_bundle(tmp_path_factory.mktemp("rigged") / rig.replace(" ", "_"), rig)
        return open_bundle(folder, provider="cpu", threads=1, slots=2)

    return build


@contextmanager
def engine_of(bundle: OpenBundle, events: Counted | None = None) -> Iterator[Engine]:
    engine = Engine(bundle, max_queue=8, events=events)
    try:
        yield engine
    finally:
        engine.close()


def job_of(engine: Engine, tokens: int | None, *, seed: int = 1, frames: int = 1000, sampling=SAMPLING) -> Job:
    prompt = engine.prompt("Hello there", speaker="serena", language="auto", instruction=None)
    return Job(prompt, sampling, seed, frames, capacity=2000, text_tokens=tokens)


def listen(job: Job) -> tuple[np.ndarray, Exception | None]:
    """All audio of a job, and the error that ended it."""
    chunks: list[np.ndarray] = []
    try:
        chunks += job
    except Exception as error:
        return np.concatenate([*chunks, []]), error
    return np.concatenate([*chunks, []]), None


MOST = {
    "never ends": 8 * TOKENS + SLOW_FLOOR,
    "loops": 1 + ALIKE_HOLD,
    "silent": SILENT_HOLD + CHUNK_RAMP[-1],
    "ends at once": 2,
}
"""Frames of audio that may leave before the row is given up."""


@pytest.mark.parametrize("rig", MOST)
def test_a_runaway_is_tried_again_and_then_an_error(rig: Rig, rigged: Callable[[Rig], OpenBundle]) -> None:
    bundle, events = rigged(rig), Counted()
    with engine_of(bundle, events) as engine:
        job = job_of(engine, tokens=40 if rig == "ends at once" else TOKENS)
        engine.submit(job)
        audio, error = listen(job)
    assert isinstance(error, RunawayError)
    step = bundle.manifest.sizes.codec.samples_per_frame
    assert 0 < len(audio) <= MOST[rig] * step
    assert (events.counts["runaway"], events.counts["retried"]) == (MAX_RETRIES + 1, MAX_RETRIES)


@pytest.mark.parametrize("rig", MOST)
def test_a_greedy_row_is_tried_with_other_draws_too(rig: Rig, rigged: Callable[[Rig], OpenBundle]) -> None:
    events = Counted()
    with engine_of(rigged(rig), events) as engine:
        job = job_of(engine, tokens=40 if rig == "ends at once" else TOKENS, sampling=GREEDY)
        engine.submit(job)
        assert isinstance(listen(job)[1], RunawayError)
    assert (events.counts["runaway"], events.counts["retried"]) == (MAX_RETRIES + 1, MAX_RETRIES)


@pytest.mark.parametrize("rig", MOST)
def test_a_callers_own_budget_keeps_the_guard_out(rig: Rig, rigged: Callable[[Rig], OpenBundle]) -> None:
    bundle, events = rigged(rig), Counted()
    with engine_of(bundle, events) as engine:
        job = job_of(engine, tokens=None, frames=60)
        engine.submit(job)
        audio, error = listen(job)
    assert error is None
    step = bundle.manifest.sizes.codec.samples_per_frame
    assert len(audio) == (2 if rig == "ends at once" else 60) * step
    assert events.counts["runaway"] == 0


def test_a_text_cut_off_by_the_models_own_limit_is_an_error(rigged: Callable[[Rig], OpenBundle]) -> None:
    with engine_of(rigged("never ends")) as engine:
        job = job_of(engine, tokens=TOKENS, frames=20)
        engine.submit(job)
        assert isinstance(listen(job)[1], RunawayError)


@pytest.mark.parametrize("arrives", [True, False])
def test_an_end_before_the_text_is_fed_comes_too_soon(rigged: Callable[[Rig], OpenBundle], arrives: bool) -> None:
    """Two frames are enough for these tokens, but the model cannot have said those that it has not been given."""
    text, tokens, events, way = "One two three.", 4, Counted(), {"speaker": "serena", "language": "auto"}
    with engine_of(rigged("ends at once"), events) as engine:
        if arrives:
            live = engine.live_text(**way, instruction=None)
            job: Job = LiveJob(live, SAMPLING, 1, 1000, 2000, patience=60, measure=lambda _: (tokens, 0))
            job.feed(text)
            job.end()
        else:
            prompt = engine.prompt(text, **way, instruction=None, layout="streaming")
            job = Job(prompt, SAMPLING, 1, 1000, 2000, text_tokens=tokens)
        engine.submit(job)
        _, error = listen(job)
    assert isinstance(error, RunawayError)
    assert "it ends too soon" in str(error)


def test_the_budget_of_a_live_text_is_that_of_all_of_it(rigged: Callable[[Rig], OpenBundle]) -> None:
    bundle, text = rigged("never ends"), "One two three. " * 4

    def measure(so_far: str) -> tuple[int, int]:
        return engine.count_tokens(so_far), 0

    with engine_of(bundle) as engine:
        live = engine.live_text(speaker="serena", language="auto", instruction=None)
        job = LiveJob(live, SAMPLING, 1, 2000, 2000, patience=60, measure=measure)
        engine.submit(job)
        for word in text.split(" "):
            job.feed(f" {word}")
        job.end()
        audio, error = listen(job)
        tokens = engine.count_tokens(f" {text}")
        assert (job.text_tokens, job.repeated_tokens) == (tokens, 0)
    assert isinstance(error, RunawayError)
    most = 8 * tokens + SLOW_FLOOR
    assert most - CHUNK_RAMP[-1] <= len(audio) // bundle.manifest.sizes.codec.samples_per_frame <= most


def test_a_runaway_beside_others_is_alone_in_it(rigged: Callable[[Rig], OpenBundle]) -> None:
    with engine_of(rigged("never ends")) as engine:
        free = [job_of(engine, tokens=None, seed=seed, frames=60) for seed in (1, 2)]
        engine.submit(free[0])
        expected, _ = listen(free[0])
        bad = job_of(engine, tokens=TOKENS)
        free[0] = job_of(engine, tokens=None, seed=1, frames=60)
        for job in (bad, *free):
            engine.submit(job)
        found, error = listen(free[0])
        assert error is None
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert isinstance(listen(bad)[1], RunawayError)
        assert listen(free[1])[1] is None


def sticky(bundle: OpenBundle, *, silent: bool) -> OpenBundle:
    """The bundle with a predictor that falls into a hole now and then, which some draws leave and some do not."""
    predictor = StickyPredictor(bundle, code_0=range(0, 256, 16), varied=silent)
    decoder = Wrapped(bundle.codec_decoder, decode=sticky_is_silent(bundle.codec_decoder)) if silent else None
    return dataclasses.replace(
        bundle, code_predictor=predictor, codec_decoder=decoder or bundle.codec_decoder, talker=predictor.talker
    )


@pytest.fixture(scope="module")
def random_bundle() -> OpenBundle:
    return open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=4)


@pytest.mark.parametrize("silent", [False, True])
def test_a_row_is_saved_and_its_seed_still_decides(random_bundle: OpenBundle, silent: bool) -> None:
    bundle = sticky(random_bundle, silent=silent)
    step = bundle.manifest.sizes.codec.samples_per_frame

    def jobs(engine: Engine) -> list[Job]:
        return [job_of(engine, tokens=8, seed=seed) for seed in SEEDS]

    events = Counted()
    alone: list[tuple[np.ndarray, Exception | None]] = []
    with engine_of(bundle, events) as engine:
        for job in jobs(engine):
            engine.submit(job)
            alone.append(listen(job))
        retried = events.counts["retried"]
        together = jobs(engine)
        for job in together:
            engine.submit(job)
        for job, (expected, failed) in zip(together, alone, strict=True):
            found, error = listen(job)
            assert type(error) is type(failed)
            assert len(found) == len(expected)
            np.testing.assert_allclose(found, expected, atol=1e-5)
    assert events.counts["retried"] == 2 * retried > 0
    saved = [audio for audio, failed in alone if failed is None]
    assert saved, "no row came through"
    if silent:
        for audio, _ in alone:
            loud = (np.square(audio.reshape(-1, step)).mean(axis=1) > 1e-6).astype(int)
            assert max(len(run) for run in "".join(map(str, loud)).split("1")) < SILENT_LIMIT + CHUNK_RAMP[-1]


def test_a_row_set_back_is_as_if_it_had_never_been_there(random_bundle: OpenBundle) -> None:
    """Codes and samples that left are those of one straight pass over the codes that were kept."""
    bundle = sticky(random_bundle, silent=False)
    talker = RecordingTalker(bundle.talker)
    synthesizer = Synthesizer(dataclasses.replace(bundle, talker=talker))
    prompt = bundle.prompts.build("Hello there", speaker="serena", language="auto", instruction=None)
    set_back = 0
    for seed in SEEDS[:2]:
        job = Job(prompt, SAMPLING, seed, 1000, capacity=2000, text_tokens=8)
        row, kept, retries = synthesizer.start(job, 1), [], 0
        while not row.finished:
            synthesizer.frame([row])
            made = row.state.made
            set_back += row.hold_back.retries > retries
            retries = row.hold_back.retries
            kept[made - 1 :] = [row.state.guard.recent[0]] if made else []
            assert job.frames == made == len(kept)
            assert row.sampler.drawn == [codes[0] for codes in kept], "the penalty counts codes thrown away"
            if made % 8 == 0 and not row.finished:
                inputs = talker.inputs(1, row.state.length)
                straight = random_bundle.talker.prefill(2, inputs)
                assert_close(bundle.talker.state.get(1).hidden, straight.hidden[0])
        job.finish(row.error)
        audio, _ = listen(job)
        codes = np.stack(kept)[None, : len(audio) // bundle.manifest.sizes.codec.samples_per_frame]
        waveform, _ = bundle.codec_decoder.decode(codes, [bundle.codec_decoder.start()])
        np.testing.assert_allclose(audio, waveform[0], atol=1e-5)
    assert set_back > 0, "nothing was thrown away: the test has shown nothing"
