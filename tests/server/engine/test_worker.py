"""The engine on the bundle that makes noise: rows do not influence one another, and every job comes to an end."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from server.engine.bundle import OpenBundle
from server.engine.job import Job, JobError, Sampling
from server.engine.manner import PromptError
from server.engine.prompt import Prompt
from server.engine.provider import open_bundle
from server.engine.scheduler import QueueFull
from server.engine.synthesizer import CHUNK_RAMP
from server.engine.worker import Engine, EngineStopped
from tests.bundles import RANDOM_BUNDLE
from tests.server.running import PATIENCE_SECONDS

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
ROWS = 3


@pytest.fixture(scope="module")
def bundle() -> OpenBundle:
    return open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=ROWS)


@pytest.fixture
def engine(bundle: OpenBundle) -> Iterator[Engine]:
    engine = Engine(bundle, max_queue=4)
    yield engine
    engine.close()


def job_of(engine: Engine, seed: int = 1, frames: int = 12, text: str = "Hello", **changes: float) -> Job:
    prompt = engine.prompt(text, speaker="serena", language="auto", instruction=None)
    sampling = dataclasses.replace(SAMPLING, **changes)
    return Job(prompt, sampling, seed, frames)


def test_a_row_has_the_positions_that_the_settings_allow() -> None:
    engine = Engine.load(
        RANDOM_BUNDLE, provider="cpu", threads=1, max_rows=1, max_queue=0, max_prompt=64, max_frames=16
    )
    try:
        assert engine.manifest.sizes.talker.max_positions == 80
        assert engine.max_frames == 16
        with pytest.raises(PromptError, match="at most 64 are allowed"):
            engine.prompt("1 2 " * 30, speaker="serena", language="auto", instruction=None)
    finally:
        engine.close()


def audio_of(engine: Engine, job: Job) -> np.ndarray:
    engine.submit(job)
    return np.concatenate(list(job))


def test_max_frames_is_exact_and_the_seed_decides(engine: Engine) -> None:
    samples_per_frame = engine.manifest.sizes.codec.samples_per_frame
    first = audio_of(engine, job_of(engine, seed=5, frames=3))
    assert len(first) == 3 * samples_per_frame
    np.testing.assert_array_equal(audio_of(engine, job_of(engine, seed=5, frames=3)), first)
    assert not np.array_equal(audio_of(engine, job_of(engine, seed=6, frames=3)), first)


def test_rows_together_sound_as_alone(bundle: OpenBundle) -> None:
    texts = ["Hi", "A rather longer sentence than the others.", "Two of three", "Late", "And last"]
    changes = [{}, {"temperature": 0.0, "predictor_temperature": 0.0}, {"predictor_top_k": 3}, {"top_p": 0.8}, {}]

    def jobs(engine: Engine) -> list[Job]:
        made = zip(texts, changes, strict=True)
        return [job_of(engine, seed, 10 + 3 * seed, text, **change) for seed, (text, change) in enumerate(made)]

    engine = Engine(bundle, max_queue=8)
    alone = [audio_of(engine, job) for job in jobs(engine)]
    together = jobs(engine)
    for job in together:
        engine.submit(job)
    for job, expected in zip(together, alone, strict=True):
        found = np.concatenate(list(job))
        assert len(found) == len(expected)
        # The codes are the same; samples of the decoder differ by rounding where rows share a call.
        np.testing.assert_allclose(found, expected, atol=1e-5)
    engine.close()


def test_a_full_queue_refuses_and_loses_nothing(engine: Engine) -> None:
    running = [job_of(engine, seed, frames=400, temperature=0.0) for seed in range(ROWS)]
    waiting = [job_of(engine, seed, frames=2) for seed in range(4)]
    for job in running:
        job.capacity = 1  # nobody reads: the rows stay where they are
        engine.submit(job)
    for job in waiting:
        engine.submit(job)
    with pytest.raises(QueueFull, match="waiting"):
        engine.submit(job_of(engine))
    for job in running:
        job.cancel()
    for job in waiting:
        assert sum(len(pcm) for pcm in job) == 2 * engine.manifest.sizes.codec.samples_per_frame


def test_a_cancelled_job_frees_its_place(engine: Engine) -> None:
    blockers = [job_of(engine, seed, frames=400) for seed in range(ROWS)]
    for job in blockers:
        job.capacity = 1
        engine.submit(job)
    queued = [job_of(engine, seed) for seed in range(4)]
    for job in queued:
        engine.submit(job)
    queued[0].cancel()
    last = job_of(engine, 9, frames=2)
    engine.submit(last)
    for job in [*blockers, *queued[1:]]:
        job.cancel()
    assert len(np.concatenate(list(last))) == 2 * engine.manifest.sizes.codec.samples_per_frame
    with pytest.raises(JobError, match="cancelled"):
        list(blockers[0])


def test_a_job_stops_within_one_frame_of_its_cancellation(engine: Engine) -> None:
    job = job_of(engine, frames=2000, temperature=0.0)
    engine.submit(job)
    next(iter(job))
    job.cancel()
    made = job.frames
    audio_of(engine, job_of(engine, 2, frames=20, temperature=0.0))
    assert job.frames <= made + 1


def test_a_reader_that_stops_costs_nothing(engine: Engine) -> None:
    slow = job_of(engine, frames=400)
    slow.capacity = 2
    engine.submit(slow)
    reader = iter(slow)
    next(reader)
    made = audio_of(engine, job_of(engine, 2, frames=30, temperature=0.0))
    assert len(made) > 0
    # One chunk beyond the capacity is the most that can be made before the engine looks again.
    assert slow.frames <= slow.capacity + CHUNK_RAMP[-1]
    slow.cancel()


def test_an_error_in_one_prefill_fails_that_job_alone(engine: Engine) -> None:
    bad = Job(Prompt(np.zeros((3, 5), np.float32), prefix=1), SAMPLING, 1, 5)
    good = job_of(engine, frames=4)
    engine.submit(bad)
    engine.submit(good)
    with pytest.raises(JobError, match="could not be made"):
        list(bad)
    assert len(np.concatenate(list(good))) > 0
    assert engine.alive


def test_an_error_in_a_frame_fails_its_rows_and_the_engine_goes_on(bundle: OpenBundle) -> None:
    class Breaks:
        def __init__(self) -> None:
            self.broken = True

        def run(self, *arguments):
            if self.broken:
                raise RuntimeError("bad numerics")
            return bundle.code_predictor.run(*arguments)

    predictor = Breaks()
    engine = Engine(dataclasses.replace(bundle, code_predictor=predictor), max_queue=4)
    with pytest.raises(JobError, match="could not be made"):
        audio_of(engine, job_of(engine))
    predictor.broken = False
    assert len(audio_of(engine, job_of(engine, frames=3))) == 3 * engine.manifest.sizes.codec.samples_per_frame
    engine.close()


def test_closing_ends_every_job_with_an_error(bundle: OpenBundle) -> None:
    engine = Engine(bundle, max_queue=4)
    jobs = [job_of(engine, seed, frames=2000) for seed in range(ROWS + 2)]
    for job in jobs:
        job.capacity = 4
        engine.submit(job)
    engine.close()
    for job in jobs:
        with pytest.raises(JobError, match="shutting down"):
            list(job)
    assert not engine.alive
    with pytest.raises(EngineStopped):
        engine.submit(job_of(engine))


def test_a_thread_that_dies_in_a_prefill_tells_everyone(bundle: OpenBundle) -> None:
    class Dies:
        slots, sizes, idle_take_part = bundle.talker.slots, bundle.talker.sizes, False

        def prefill(self, *arguments):
            raise SystemExit

    engine = Engine(dataclasses.replace(bundle, talker=Dies()), max_queue=4)
    job = job_of(engine)
    engine.submit(job)
    with pytest.raises(JobError):
        list(job)
    engine.close()
    assert not engine.alive


def test_a_dead_thread_tells_everyone(bundle: OpenBundle) -> None:
    class Dies:
        def run(self, *arguments):
            raise SystemExit

    engine = Engine(dataclasses.replace(bundle, code_predictor=Dies()), max_queue=4)
    jobs = [job_of(engine, seed) for seed in range(2)]
    ended: list[str] = []

    def read(job: Job) -> None:
        try:
            list(job)
        except JobError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=read, args=(job,)) for job in jobs]
    for thread, job in zip(threads, jobs, strict=True):
        thread.start()
        try:
            engine.submit(job)
        except EngineStopped:
            job.finish(JobError("refused"))
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert len(ended) == 2
    assert not engine.alive
