"""Chunks side by side: heard in order, bounded in number, stopped together."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from server.audio.joins import FADE_SECONDS
from server.engine.guard import FRAMES_PER_TOKEN
from server.engine.job import Job, JobError, RunawayError, Sampling
from server.engine.manner import CloneError, InstructionError, PromptError
from server.engine.prompt import Prompt
from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.models.pool_entry import SpeechEngine
from server.speech import reading as server_reading
from server.speech.delivery import Delivery
from server.speech.pieces import VoicedChunk
from server.speech.plan import Plan
from server.speech.planned_reading import PlannedReading
from server.speech.reading import MAX_ATTEMPTS, PAUSE_SECONDS, Reading, chunk_seed, frames_of, tokens_to_say
from server.text import tags
from server.text.chunks import MAX_TOKENS, Chunk, chunks
from server.text.repetition import repeated
from server.text.sentences import Boundary
from tests.server.fakes import FRAME, SAMPLE_RATE, manifest_of
from tests.server.running import PATIENCE_SECONDS

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
DELIVERY = Delivery("ryan", "english", None, SAMPLING, 1.0)
MANIFEST = Manifest.model_validate(manifest_of("fake"))
NO_PROMPT = Prompt(np.zeros((1, 1), np.float32), prefix=1)
MAX_FRAMES = 100
"""Of the jobs here: more than any of them makes, so that none is cut off."""
CAPACITY = 4
"""Of the jobs here, in frames."""


class HandEngine:
    """Does nothing by itself: the test makes the audio."""

    manifest = MANIFEST
    max_frames = MANIFEST.sizes.talker.max_positions
    provider = "cpu"
    alive = True

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.jobs: list[Job] = []

    def prompt(
        self, text: str, *, speaker: str | None, language: str, instruction: str | None, layout: str
    ) -> np.ndarray:
        raise NotImplementedError

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    async def wait_for(self, count: int) -> list[Job]:
        await until(lambda: len(self.jobs) >= count)
        return self.jobs

    def close(self) -> None:
        raise NotImplementedError


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def make_job(voiced: VoicedChunk, number: int, attempt: int = 0) -> Job:
    return Job(NO_PROMPT, SAMPLING, number + 100 * attempt, MAX_FRAMES, CAPACITY, spare=number > 0 or attempt > 0)


def numbered(count: int, boundary: Boundary = Boundary.SENTENCE) -> Iterator[VoicedChunk]:
    """So many chunks, as a generator that ends after them."""
    for number in range(count):
        yield VoicedChunk(Chunk(str(number), 10, Boundary.TEXT if number == count - 1 else boundary), DELIVERY)


def level(number: int) -> np.ndarray:
    """One frame of the audio of a chunk, by which it is known."""
    return np.full(FRAME, (number + 1) / 100, np.float32)


async def heard(reading: Reading) -> list[np.ndarray]:
    return [samples async for samples in reading]


def order(samples: list[np.ndarray]) -> list[int]:
    """Numbers of the chunks, in the order in which they are heard."""
    levels = np.round(np.concatenate(samples) * 100).astype(int)
    return [number - 1 for number, run in itertools.groupby(levels.tolist()) if number and len(list(run)) > FRAME // 2]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await test()

    asyncio.run(limited())


def test_later_chunks_that_are_ready_first_are_heard_in_their_turn() -> None:
    async def test() -> None:
        engine = HandEngine(rows=3)
        reading = PlannedReading(engine, numbered(4), make_job)
        await reading.begin()
        task = asyncio.create_task(heard(reading))
        engine.jobs[0].put(level(0), 1)
        for number, job in reversed(list(enumerate(await engine.wait_for(4)))):
            if number:
                job.put(level(number), 1)
            job.finish()
        assert order(await task) == [0, 1, 2, 3]

    run(test)


def test_as_many_ahead_as_there_are_rows_and_only_what_is_heard_is_no_spare_job() -> None:
    async def test() -> None:
        engine = HandEngine(rows=3)
        ended = 0
        ahead: list[int] = []

        def make(voiced: VoicedChunk, number: int, attempt: int) -> Job:
            ahead.append(len(engine.jobs) - ended)
            return make_job(voiced, number, attempt)

        reading = PlannedReading(engine, numbered(9), make)
        await reading.begin()
        task = asyncio.create_task(heard(reading))
        for number in range(9):
            assert len(engine.jobs) == min(number + 3, 9) or number == 0
            await until(lambda number=number: not engine.jobs[number].spare)
            engine.jobs[number].put(level(number), 1)
            jobs = await engine.wait_for(min(number + 4, 9))
            assert [job.spare for job in jobs] == [False] * (number + 1) + [True] * (len(jobs) - number - 1)
            ended += 1
            jobs[number].finish()
        assert order(await task) == list(range(9))
        assert ahead == [0, 1, 2, 3, 3, 3, 3, 3, 3]

    run(test)


def test_a_first_chunk_that_waits_takes_no_place_for_others() -> None:
    async def test() -> None:
        engine = HandEngine(rows=3)
        begun: list[int] = []

        def make(voiced: VoicedChunk, number: int, attempt: int) -> Job:
            begun.append(number)
            return make_job(voiced, number, attempt)

        reading = PlannedReading(engine, numbered(4), make)
        await reading.begin()
        samples = aiter(reading)
        first = asyncio.ensure_future(anext(samples))
        await asyncio.sleep(0)
        assert begun == [0]
        engine.jobs[0].put(level(0), 1)
        await first
        assert begun == [0], "the first audio waits for no other prompt"
        reading.stop()

    run(test)


def test_a_chunk_that_comes_to_be_heard_while_it_waits_wakes_the_engine() -> None:
    async def test() -> None:
        engine = HandEngine(rows=1)
        reading = PlannedReading(engine, numbered(2), make_job)
        await reading.begin()
        task = asyncio.create_task(heard(reading))
        engine.jobs[0].put(level(0), 1)
        second = (await engine.wait_for(2))[1]
        promoted = asyncio.Event()
        second.on_consumer = lambda: promoted.set() if not second.spare else None
        assert second.spare
        engine.jobs[0].finish()
        await promoted.wait()
        second.put(level(1), 1)
        second.finish()
        assert order(await task) == [0, 1]

    run(test)


@pytest.mark.parametrize("boundary", [b for b in Boundary if b is not Boundary.TEXT])
def test_pauses_are_those_of_what_ends(boundary: Boundary) -> None:
    async def test() -> None:
        engine = HandEngine(rows=2)
        reading = PlannedReading(engine, numbered(3, boundary), make_job)
        await reading.begin()
        task = asyncio.create_task(heard(reading))
        engine.jobs[0].put(level(0), 1)
        for job in await engine.wait_for(3):
            if job is not engine.jobs[0]:
                job.put(level(1), 1)
            job.finish()
        pause = round((PAUSE_SECONDS[boundary] or 0) * SAMPLE_RATE)
        whole = np.concatenate(await task)
        assert len(whole) == 3 * FRAME + 2 * pause
        assert not whole[FRAME : FRAME + pause].any()
        assert whole[FRAME - 1] and whole[FRAME + pause]

    run(test)


def test_a_single_chunk_is_heard_as_it_is() -> None:
    async def test() -> None:
        engine = HandEngine(rows=2)
        reading = PlannedReading(engine, numbered(1), make_job)
        await reading.begin()
        (job,) = engine.jobs
        parts = [np.zeros(FRAME, np.float32), level(3), np.zeros(FRAME, np.float32)]
        for part in parts:
            job.put(part, 1)
        job.finish()
        np.testing.assert_array_equal(np.concatenate(await heard(reading)), np.concatenate(parts))
        assert not job.spare

    run(test)


def test_an_error_of_a_later_chunk_comes_after_what_was_said_before_it() -> None:
    async def test() -> None:
        engine = HandEngine(rows=4)
        reading = PlannedReading(engine, numbered(5), make_job)
        await reading.begin()
        engine.jobs[0].put(level(0), 1)
        samples: list[np.ndarray] = []

        async def listen() -> None:
            async for part in reading:
                samples[len(samples) :] = [part]

        task = asyncio.create_task(listen())
        jobs = await engine.wait_for(5)
        jobs[2].finish(JobError("it failed"))
        jobs[1].put(level(1), 1)
        jobs[0].finish()
        jobs[1].finish()
        with pytest.raises(JobError, match="it failed"):
            await task
        assert order(samples) == [0, 1]
        reading.stop()
        assert all(job.cancelled for job in jobs[2:])

    run(test)


def test_a_chunk_that_cannot_be_made_ends_the_reading() -> None:
    def fail_at_two(voiced: VoicedChunk, number: int, attempt: int) -> Job:
        if number == 2:
            raise ValueError("too long")
        return make_job(voiced, number, attempt)

    async def test() -> None:
        engine = HandEngine(rows=2)
        reading = PlannedReading(engine, numbered(4), fail_at_two)
        await reading.begin()
        engine.jobs[0].put(level(0), 1)
        with pytest.raises(ValueError, match="too long"):
            await heard(reading)

    run(test)


def test_stopping_ends_every_job_and_begins_no_other() -> None:
    async def test() -> None:
        engine = HandEngine(rows=3)
        held, begun = threading.Event(), threading.Event()

        def slow(voiced: VoicedChunk, number: int, attempt: int) -> Job:
            if number == 3:
                begun.set()
                held.wait(PATIENCE_SECONDS)
            return make_job(voiced, number, attempt)

        reading = PlannedReading(engine, numbered(9), slow)
        await reading.begin()
        engine.jobs[0].put(level(0), 1)
        task = asyncio.create_task(heard(reading))
        await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        reading.stop()
        held.set()
        with pytest.raises(JobError, match="cancelled"):
            await task
        assert len(engine.jobs) == 3
        assert all(job.cancelled for job in engine.jobs)

    run(test)


class BusyEngine(HandEngine):
    """Makes frames in a thread: eight a job, for as many jobs as it has rows, in order of arrival."""

    frames_a_job = 8

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.most_jobs = self.most_unread = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def submit(self, job: Job) -> None:
        with self._changed:
            job.on_consumer = self._wake
            self.jobs.append(job)
            live = [job for job in self.jobs if job._unread or job.frames < self.frames_a_job]
            self.most_jobs = max(self.most_jobs, len(live))
            self._changed.notify()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        self._closed = True
        self._wake()
        self._thread.join()

    def runnable(self) -> list[Job]:
        live = [job for job in self.jobs if job.frames < self.frames_a_job]
        return [job for job in live[: self.rows] if not job.full]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self.runnable())
                if self._closed:
                    return
                running = self.runnable()
            for job in running:
                job.frames += 1
                job.put(level(job.seed % 90)[:1], 1)
                if job.frames == self.frames_a_job:
                    job.finish()
            self.most_unread = max(self.most_unread, sum(job._unread for job in self.jobs))


@pytest.mark.parametrize("rows", [1, 4])
def test_a_book_takes_bounded_memory(rows: int) -> None:
    text = ("It was late, and nobody came to the station. " * 2500)[:100_000]

    async def test() -> None:
        engine = BusyEngine(rows)
        reading = PlannedReading(
            engine, (VoicedChunk(chunk, DELIVERY) for chunk in chunks(text, "en", engine.count_tokens)), make_job
        )
        try:
            await reading.begin()
            parts: list[np.ndarray] = []
            async for samples in reading:
                parts[len(parts) :] = [samples]
                if len(parts) % 50 == 0:  # a reader so slow that the engine has nothing more to do
                    await until(lambda: not engine.runnable())
            expected = list(chunks(text, "en", engine.count_tokens))
            assert len(expected) == len(engine.jobs) > 100
            assert engine.most_jobs <= rows + 1
            assert CAPACITY < engine.most_unread <= (rows + 1) * CAPACITY
            pauses = sum(round((PAUSE_SECONDS[chunk.boundary] or 0) * SAMPLE_RATE) for chunk in expected)
            assert sum(map(len, parts)) == len(expected) * engine.frames_a_job + pauses
        finally:
            engine.close()

    run(test)


def test_the_longest_chunk_is_made_to_its_end_while_nobody_reads() -> None:
    """At the usual pace: a row that stopped for its reader would keep its slot, as text of one chunk does too."""
    job = Job(NO_PROMPT, SAMPLING, 1, 10_000, server_reading.CAPACITY)
    for _ in range(FRAMES_PER_TOKEN * MAX_TOKENS):
        job.put(level(0), 1)
    assert not job.full


def test_each_chunk_has_a_seed_of_its_own_that_stays_the_same() -> None:
    assert chunk_seed(5, 0) == 5
    seeds = [chunk_seed(seed, number) for seed in (0, 5, 2**63 - 1) for number in range(100)]
    assert len(set(seeds)) == len(seeds)
    assert chunk_seed(5, 1) == 3462322709277726755, "a request with a seed sounds tomorrow as it does today"


RUNAWAY = RunawayError("no speech")


def test_a_chunk_that_nobody_has_heard_is_made_again() -> None:
    async def test() -> None:
        engine = HandEngine(rows=3)
        reading = PlannedReading(engine, numbered(3), make_job)
        await reading.begin()
        listening = asyncio.create_task(heard(reading))
        first = engine.jobs[0]
        first.put(level(0), 1)
        _, second, third = await engine.wait_for(3)
        second.put(level(7), 1)  # babble that was let go before it was certain
        second.finish(RUNAWAY)
        third.put(level(2), 1)
        third.finish()
        first.finish()
        again = (await engine.wait_for(4))[3]
        assert again.seed == 101
        assert not again.spare, "it is waited for"
        again.put(level(1), 1)
        again.finish()
        found = np.concatenate(await listening)
        assert [level(number)[0] in found for number in (0, 1, 2, 7)] == [True, True, True, False]

    run(test)


def test_a_chunk_that_is_no_speech_again_ends_the_reading() -> None:
    async def test() -> None:
        engine = HandEngine(rows=1)
        reading = PlannedReading(engine, numbered(1), make_job)
        await reading.begin()
        listening = asyncio.create_task(heard(reading))
        for count in range(1, MAX_ATTEMPTS + 1):
            (await engine.wait_for(count))[-1].finish(RUNAWAY)
        with pytest.raises(RunawayError):
            await listening
        assert len(engine.jobs) == MAX_ATTEMPTS

    run(test)


def test_a_chunk_that_was_heard_in_part_is_not_made_again() -> None:
    async def test() -> None:
        engine = HandEngine(rows=1)
        reading = PlannedReading(engine, numbered(1), make_job)
        await reading.begin()
        samples = aiter(reading)
        engine.jobs[0].put(level(0), 1)
        engine.jobs[0].put(level(0), 1)
        await anext(samples)
        engine.jobs[0].finish(RUNAWAY)
        with pytest.raises(RunawayError):
            while True:
                await anext(samples)
        assert len(engine.jobs) == 1

    run(test)


def test_a_silence_comes_in_pieces() -> None:
    async def test() -> None:
        silence = tags.Silence(Decimal("2.50001"))
        reading = PlannedReading(HandEngine(rows=1), iter([silence]), make_job)
        await reading.begin()
        sizes = [len(samples) async for samples in reading]
        assert sizes == [SAMPLE_RATE, SAMPLE_RATE, SAMPLE_RATE // 2]

    run(test)


@pytest.mark.parametrize(
    ("text", "repeats"),
    [("very " * 40, 39), ("no no yes", 1), ("tick tock " * 12, 22), ("a b c d", 0), ("", 0), ("one", 0)],
)
def test_repeated_words_are_counted(text: str, repeats: int) -> None:
    assert repeated(text.split()) == repeats


@pytest.mark.parametrize(
    ("text", "tokens", "repeats"),
    [
        ("Hello there.", 12, 0),
        ("\U0001f602" * 30, 1, 0),
        ("=" * 80, 1, 0),
        ("\u2500" * 60 + " Yes", 4, 0),
        ("Yes " + "!?" * 500, 4, 0),
        ("very " * 4, 20, 15),
        ("very, " * 4, 20, 15),
        ("e\u0301t\u00e9", 4, 0),
    ],
)
def test_symbols_take_no_time_to_say(text: str, tokens: int, repeats: int) -> None:
    """So a run of them gives the guard no reason to wait for minutes. A token is a character here."""
    assert tokens_to_say(cast(SpeechEngine, CountsCharacters()), text) == (tokens, repeats)


class CountsCharacters:
    def count_tokens(self, text: str) -> int:
        return len(text)


class NarrowEngine(HandEngine):
    """A model for which no chunk of more than so many words fits."""

    most = 3

    def make(self, voiced: VoicedChunk, number: int, attempt: int) -> Job:
        if len(voiced.chunk.text.split()) > self.most:
            raise PromptError(f"the text {voiced.chunk.text!r} is too long")
        return make_job(voiced, number, attempt)


@pytest.mark.parametrize("first", ["Short.", "So this one is long, and that one is not short too."])
def test_a_chunk_that_does_not_fit_the_model_is_cut_further(first: str) -> None:
    texts = [first, "It was late, and nobody at all came to the station.", "Bye."]
    boundaries = [Boundary.SENTENCE, Boundary.PARAGRAPH, Boundary.TEXT]

    async def test() -> None:
        engine = NarrowEngine(rows=1)
        made: list[VoicedChunk] = []

        def make(voiced: VoicedChunk, number: int, attempt: int) -> Job:
            job = engine.make(voiced, number, attempt)
            assert number == len(made)
            made.append(voiced)
            job.put(level(number), 1)
            job.finish()
            return job

        pieces = (VoicedChunk(Chunk(text, 9, end), DELIVERY) for text, end in zip(texts, boundaries, strict=True))
        reading = PlannedReading(engine, pieces, make)
        await reading.begin()
        assert order(await heard(reading)) == list(range(len(made)))
        assert " ".join(voiced.chunk.text for voiced in made) == " ".join(texts)
        assert len(made) > len(texts)
        assert [voiced.chunk.boundary for voiced in made if voiced.chunk.boundary >= Boundary.PARAGRAPH] == boundaries[
            1:
        ]

    run(test)


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (PromptError("no room"), 3),
        (InstructionError("too long"), 1),
        (CloneError("no such voice"), 1),
        (InvalidRequestError("no"), 1),
    ],
)
def test_a_model_that_no_text_fits_is_told_at_once(error: Exception, calls: int) -> None:
    async def test() -> None:
        tried: list[str] = []

        def make(voiced: VoicedChunk, number: int, attempt: int) -> Job:
            tried.append(voiced.chunk.text)
            raise error

        reading = PlannedReading(
            HandEngine(rows=1), iter([VoicedChunk(Chunk("word", 1, Boundary.TEXT), DELIVERY)]), make
        )
        with pytest.raises(type(error)):
            await reading.begin()
        assert len(tried) == calls
        assert tried[-1] in "word"

    run(test)


def test_each_voice_has_its_own_speed_and_no_sample_is_lost_between() -> None:
    slow = replace(DELIVERY, speed=0.5)

    async def test() -> None:
        engine = HandEngine(rows=3)
        voiced = [
            VoicedChunk(Chunk("One.", 1, Boundary.WORD), DELIVERY),
            VoicedChunk(Chunk("Two.", 1, Boundary.WORD), slow),
            VoicedChunk(Chunk("Three.", 1, Boundary.TEXT), DELIVERY),
        ]
        reading = PlannedReading(engine, iter(voiced), make_job)
        await reading.begin()
        task = asyncio.create_task(heard(reading))
        engine.jobs[0].put(level(0), 1)
        for number, job in enumerate(await engine.wait_for(3)):
            if number:
                job.put(level(number), 1)
            job.finish()
        assert len(np.concatenate(await task)) == (1 + 2 + 1) * FRAME

    run(test)


@pytest.mark.parametrize(("max_frames", "fades"), [(1, True), (2, False)])
@pytest.mark.parametrize("after", [[], [tags.Silence(Decimal("0.1"))]])
def test_only_an_end_that_the_budget_made_fades_out(max_frames: int, fades: bool, after: list[tags.Silence]) -> None:
    async def test() -> None:
        engine = HandEngine(rows=1)

        def make(voiced: VoicedChunk, number: int, attempt: int) -> Job:
            return Job(NO_PROMPT, SAMPLING, 1, max_frames, CAPACITY)

        reading = PlannedReading(engine, iter([*numbered(1), *after]), make)
        await reading.begin()
        engine.jobs[0].frames = 1
        engine.jobs[0].put(level(0), 1)
        engine.jobs[0].finish()
        spoken = np.concatenate(await heard(reading))[:FRAME]
        fade = round(FADE_SECONDS * SAMPLE_RATE)
        np.testing.assert_array_equal(spoken[:-fade], level(0)[:-fade])
        assert (spoken[-1] < level(0)[-1] / 100) == fades
        assert np.array_equal(spoken, level(0)) != fades

    run(test)


def test_a_cap_ends_the_reading_and_every_job() -> None:
    async def test() -> None:
        engine = HandEngine(rows=3)
        reading = PlannedReading(engine, numbered(6), make_job, most_frames=4)
        await reading.begin()
        task = asyncio.create_task(heard(reading))
        engine.jobs[0].put(level(0), 1)
        jobs = await engine.wait_for(4)
        jobs[0].put(np.tile(level(0), 2), 2)
        jobs[0].frames = 3
        jobs[1].put(np.tile(level(1), 3), 3)
        jobs[0].finish()
        samples = np.concatenate(await task)
        pause = round((PAUSE_SECONDS[Boundary.SENTENCE] or 0) * SAMPLE_RATE)
        assert len(samples) == 4 * FRAME + pause
        assert samples[3 * FRAME - 121] == level(0)[0]
        assert abs(samples[-1]) < 1e-5 < samples[-120], "the end fades"
        assert reading.capped
        assert reading.usage == (20, 4)
        assert all(job.cancelled for job in jobs[1:])
        assert len(engine.jobs) == 4, "no other is begun"

    run(test)


@pytest.mark.parametrize("most", [3, 4, None])
def test_a_cap_that_the_speech_does_not_pass_is_no_end(most: int | None) -> None:
    async def test() -> None:
        engine = HandEngine(rows=2)
        reading = PlannedReading(engine, numbered(1), make_job, most_frames=most)
        await reading.begin()
        engine.jobs[0].put(np.tile(level(0), 3), 3)
        engine.jobs[0].frames = 3
        engine.jobs[0].finish()
        assert len(np.concatenate(await heard(reading))) == 3 * FRAME
        assert not reading.capped
        assert reading.usage == (10, 3)

    run(test)


def test_no_chunk_is_begun_that_the_cap_leaves_no_room_for() -> None:
    async def test() -> None:
        engine = HandEngine(rows=4)
        reading = PlannedReading(engine, numbered(9), make_job, most_frames=5)
        await reading.begin()
        task = asyncio.create_task(heard(reading))
        engine.jobs[0].put(level(0), 1)
        jobs = await engine.wait_for(5)
        for job in jobs[1:]:
            job.frames = 2
        jobs[0].finish()
        await until(lambda: not jobs[1].spare)
        jobs[1].put(level(1), 1)
        await until(lambda: not jobs[1]._unread)
        assert len(engine.jobs) == 5, "three chunks ahead have as many frames as may be heard"
        reading.stop()
        with pytest.raises(JobError):
            await task

    run(test)


def test_a_stretched_speech_is_capped_in_frames_of_the_model() -> None:
    async def test() -> None:
        engine = HandEngine(rows=1)
        fast = [voiced._replace(delivery=replace(DELIVERY, speed=2.0)) for voiced in numbered(1)]
        reading = PlannedReading(engine, iter(fast), make_job, most_frames=10)
        await reading.begin()
        engine.jobs[0].put(np.tile(level(0), 30), 30)
        assert len(np.concatenate(await heard(reading))) == 5 * FRAME
        assert reading.capped

    run(test)


@pytest.mark.parametrize("exact", [None, 17, 16])
def test_a_row_makes_no_more_frames_than_the_settings_allow(exact: int | None) -> None:
    """A row with a short prompt had been given what the prompt left of its positions."""
    engine = HandEngine(1)
    engine.max_frames = 16
    plan = cast(Plan, SimpleNamespace(exact_frames=exact))
    if exact == 17:
        with pytest.raises(InvalidRequestError, match="exact_frames must be at most 16 for this model"):
            frames_of(plan, engine, 10)
    else:
        assert frames_of(plan, engine, 10) == 16
