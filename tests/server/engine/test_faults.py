"""Whatever goes wrong in one row, at whatever stage, ends that row; whoever leaves is gone within one frame."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from server.engine.bundle import OpenBundle
from server.engine.job import Job, JobError, Sampling
from server.engine.prompt import Prompt
from server.engine.provider import open_bundle
from server.engine.worker import Engine
from server.graphs.frame_state import Controls
from server.graphs.talker import TalkerOutput
from tests.bundles import RANDOM_BUNDLE
from tests.server.engine.rigs import STUCK, Counted, Wrapped, mark, marked
from tests.server.running import PATIENCE_SECONDS

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
CULPRIT = 0.777
"""Temperature of the code predictor by which the rigged graphs know the row that fails."""
BAD_FROM = 5
"""Frames that it makes before."""


@pytest.fixture(scope="module")
def bundle() -> OpenBundle:
    return open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=3)


@contextmanager
def engine_of(bundle: OpenBundle, events: Counted | None = None) -> Iterator[Engine]:
    engine = Engine(bundle, max_queue=4, events=events)
    try:
        yield engine
    finally:
        engine.close()


def job_of(engine: Engine, seed: int, frames: int = 20, **changes: float) -> Job:
    prompt = engine.prompt("Hello there", speaker="serena", language="auto", instruction=None)
    return Job(prompt, dataclasses.replace(SAMPLING, temperature=0.0, **changes), seed, frames)


class Marks:
    """A code predictor that marks the culprit's frames from the sixth on, by their codes and the talker's input."""

    def __init__(self, bundle: OpenBundle) -> None:
        self._inner, self._talker, self._frames = bundle.code_predictor, bundle.talker, 0

    def run(self, start: int, controls: np.ndarray) -> np.ndarray:
        codes = self._inner.run(start, controls)
        culprit = np.isclose(controls[:, Controls._fields.index("predictor_temperature")], CULPRIT)
        self._frames += int(culprit.sum())
        if self._frames > BAD_FROM:
            codes[culprit, 1:] = STUCK
            for row in np.flatnonzero(culprit):
                mark(self._talker, start + int(row))
        return codes


def predictor_raises(bundle: OpenBundle) -> OpenBundle:
    marks = Marks(bundle)

    def run(start: int, controls: np.ndarray) -> np.ndarray:
        codes = marks.run(start, controls)
        if (codes[:, 1:] == STUCK).all(axis=1).any():
            raise RuntimeError("the code predictor failed")
        return codes

    return dataclasses.replace(bundle, code_predictor=Wrapped(marks, run=run))


def decoder_of(bundle: OpenBundle, fault: Callable[[np.ndarray, np.ndarray], None]) -> OpenBundle:
    def decode(codes: np.ndarray, states: Any) -> Any:
        waveform, after = bundle.codec_decoder.decode(codes, states)
        fault(waveform, (codes[:, :, 1:] == STUCK).all(axis=2).any(axis=1))
        return waveform, after

    decoder = Wrapped(bundle.codec_decoder, decode=decode)
    return dataclasses.replace(bundle, code_predictor=Marks(bundle), codec_decoder=decoder)


def talker_of(bundle: OpenBundle, fault: Callable[[np.ndarray, np.ndarray], None], output_name: str) -> OpenBundle:
    def advance(start: int, stop: int, longest: int) -> None:
        culprit = marked(bundle.talker, start, stop)
        bundle.talker.advance(start, stop, longest)
        buffer = getattr(bundle.talker.state, output_name)
        values = buffer.read(start, stop)
        fault(values, culprit)
        buffer.write(start, values)

    talker = Wrapped(bundle.talker, advance=advance)
    return dataclasses.replace(bundle, code_predictor=Marks(bundle), talker=talker)


def raises(_: np.ndarray, culprit: np.ndarray) -> None:
    if culprit.any():
        raise MemoryError


def not_a_number(values: np.ndarray, culprit: np.ndarray) -> None:
    values[culprit] = np.nan


FAULTS: dict[str, Callable[[OpenBundle], OpenBundle]] = {
    "predictor raises": predictor_raises,
    "decoder raises": lambda bundle: decoder_of(bundle, raises),
    "decoder gives no numbers": lambda bundle: decoder_of(bundle, not_a_number),
    "talker raises": lambda bundle: talker_of(bundle, raises, "logits"),
    "talker gives no logits": lambda bundle: talker_of(bundle, not_a_number, "logits"),
    "talker gives no hidden state": lambda bundle: talker_of(bundle, not_a_number, "hidden"),
}


@pytest.mark.parametrize("culprit", [0, 1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_one_row_ends_it_alone(bundle: OpenBundle, fault: str, culprit: int) -> None:
    with engine_of(bundle) as engine:
        alone = []
        for seed in range(3):
            job = job_of(engine, seed)
            engine.submit(job)
            alone.append(np.concatenate(list(job)))
    with engine_of(FAULTS[fault](bundle)) as engine:
        changes = [{"predictor_temperature": CULPRIT} if seed == culprit else {} for seed in range(3)]
        jobs = [job_of(engine, seed, **change) for seed, change in enumerate(changes)]
        for job in jobs:
            engine.submit(job)
        for number, job in enumerate(jobs):
            if number == culprit:
                with pytest.raises(JobError, match="could not be made"):
                    list(job)
                assert 0 < job.frames < job.max_frames
            else:
                np.testing.assert_allclose(np.concatenate(list(job)), alone[number], atol=1e-5)
        assert engine.alive
        again = job_of(engine, 0)
        engine.submit(again)
        np.testing.assert_allclose(np.concatenate(list(again)), alone[0], atol=1e-5)


@pytest.mark.parametrize("fault", ["raises", "gives no numbers"])
def test_a_fault_in_a_prefill(bundle: OpenBundle, fault: str) -> None:
    def prefill(slot: int, prompt: np.ndarray, past: int = 0) -> TalkerOutput:
        if len(prompt) == 2:
            if fault == "raises":
                raise MemoryError
            return TalkerOutput(*(np.full_like(value, np.nan) for value in bundle.talker.prefill(slot, prompt, past)))
        return bundle.talker.prefill(slot, prompt, past)

    with engine_of(dataclasses.replace(bundle, talker=Wrapped(bundle.talker, prefill=prefill))) as engine:
        good = job_of(engine, 1)
        bad = Job(Prompt(good.prompt.embeddings[:3], prefix=1), SAMPLING, 1, 20)
        for job in (bad, good):
            engine.submit(job)
        with pytest.raises(JobError, match="could not be made"):
            list(bad)
        assert len(np.concatenate(list(good))) == 20 * engine.manifest.sizes.codec.samples_per_frame


def test_leaving_during_the_prefill(bundle: OpenBundle) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def prefill(slot: int, prompt: np.ndarray, past: int = 0) -> TalkerOutput:
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return bundle.talker.prefill(slot, prompt, past)

    events = Counted()
    talker = Wrapped(bundle.talker, prefill=prefill, slots=1)
    with engine_of(dataclasses.replace(bundle, talker=talker), events) as engine:
        leaver, queued, stays = (job_of(engine, seed, frames=3) for seed in range(3))
        for job in (leaver, queued, stays):
            engine.submit(job)
        assert begun.wait(PATIENCE_SECONDS)
        leaver.cancel()
        queued.cancel()
        go_on.set()
        assert len(np.concatenate(list(stays))) == 3 * engine.manifest.sizes.codec.samples_per_frame
        assert (leaver.frames, queued.frames) == (0, 0)
    assert events.counts == {"queued": 2, "prefilled": 2, "cancelled": 2, "frame_made": 3}


def test_leaving_between_frames_frees_the_only_slot(bundle: OpenBundle) -> None:
    events = Counted()
    with engine_of(dataclasses.replace(bundle, talker=Wrapped(bundle.talker, slots=1)), events) as engine:
        leaver, stays = job_of(engine, 0, frames=1000), job_of(engine, 1, frames=3)
        engine.submit(leaver)
        engine.submit(stays)
        next(iter(leaver))
        assert (engine.running, engine.waiting) == (1, 1)
        leaver.cancel()
        made = leaver.frames
        assert len(np.concatenate(list(stays))) == 3 * engine.manifest.sizes.codec.samples_per_frame
        assert leaver.frames <= made + 1
    assert events.counts["cancelled"] == 1
    assert (engine.running, engine.waiting) == (0, 0)
