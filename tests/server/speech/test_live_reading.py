"""The reading of a text that arrives over time, on an engine that makes a frame for each token: rows, pauses, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from server.audio.joins import KEPT_AFTER_SECONDS
from server.engine.job import Job, RunawayError
from server.engine.live import LiveJob
from server.engine.manner import PromptError
from server.engine.scheduler import QueueFull
from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.metrics import NoEvents
from server.speech.live import LiveText
from server.speech.live_plan import make_live_plan
from server.speech.live_reading import AT_ONCE_CHARS, SETTLE_SECONDS, YIELD_SECONDS, LiveReading
from server.speech.reading import PAUSE_SECONDS, SILENCE_SECONDS
from server.speech.request import SpeechRequest
from server.speech.stall_timeout import stall_timeout
from server.text.chunks import GOAL_TOKENS
from server.text.gradual import Gradual
from server.text.sentences import Boundary
from tests.server.clock import run, settle, skip, until
from tests.server.fakes import FRAME, SAMPLE_RATE, UNFIT, FakeEngine, manifest_of, said_by

MANIFEST = Manifest.model_validate(manifest_of("model", generation={"max_new_tokens": 400}))
PATIENCE = 10.0


class Spoken(FakeEngine):
    """An engine that ends a row where its text ends, a frame a character, and remembers what each row was given."""

    rows = 2
    quiet_frames = 0
    """Of silence at the end of each row."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.others = 0
        super().__init__(MANIFEST, 16, NoEvents())

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        super().submit(job)

    @property
    def waiting(self) -> int:
        return super().waiting + self.others

    def _speak(self, job: Job) -> None:
        if "runaway" in said_by(job) and not isinstance(job.error, RunawayError) and len(self.jobs) == 1:
            job.finish(RunawayError("babble"))
            return
        while not (job.over or self._closed):
            with self._changed:
                self._changed.wait_for(lambda: not job.starved or job.over or self._closed)
            if job.frames >= job.max_frames or (not job.starved and not job.has_text_left):
                break
            job.frames += 1
            self.frames_made += 1
            job.put(np.full(FRAME, 0.5, np.float32), 1)
        if self.quiet_frames and not job.over:
            job.frames += self.quiet_frames
            job.put(np.zeros(self.quiet_frames * FRAME, np.float32), self.quiet_frames)
        job.finish()

    def said(self) -> list[str]:
        return [said_by(job) for job in self.jobs]


class Heard:
    """What is heard of a reading."""

    def __init__(self) -> None:
        self.samples: list[np.ndarray] = []
        self.error: BaseException | None = None
        self.over = False

    @property
    def audio(self) -> np.ndarray:
        return np.concatenate(self.samples) if self.samples else np.zeros(0, np.float32)


@asynccontextmanager
async def reading_of(text: LiveText, **fields: object) -> AsyncIterator[tuple[Spoken, LiveReading, Heard]]:
    """A reading that is heard as it is made."""
    engine, heard = Spoken(), Heard()
    request = SpeechRequest(input="a", voice="serena", **fields)  # type: ignore[arg-type]
    reading = LiveReading(engine, make_live_plan(request, MANIFEST, {}), text.parts, PATIENCE)

    async def hear() -> None:
        try:
            await reading.begin()
            async for samples in reading:
                heard.samples.append(samples)
        except (InvalidRequestError, PromptError, QueueFull) as error:
            heard.error = error
        heard.over = True

    hearing = asyncio.create_task(hear())
    try:
        yield engine, reading, heard
    finally:
        reading.stop()
        hearing.cancel()
        await asyncio.wait([hearing])
        await asyncio.to_thread(engine.close)


def live_text() -> LiveText:
    return LiveText("token", "en", 100_000)


def played(play: Callable[[], Awaitable[None]]) -> None:
    run(play())  # type: ignore[arg-type]


async def whole(parts: list[str], **fields: object) -> tuple[list[str], Heard]:
    """What the rows were given of a text in these parts, and what was heard."""
    text = live_text()
    async with reading_of(text, **fields) as (engine, _, heard):
        for part in parts:
            text.feed(part)
            await settle()
        text.end()
        await until(lambda: heard.over, "the reading ends")
        return engine.said(), heard


def seconds(heard: Heard) -> float:
    return len(heard.audio) / SAMPLE_RATE


def test_only_a_trimmed_start_fades_in() -> None:
    async def play() -> None:
        for trim, first in ((False, 0.5), (True, 0.0)):
            _, heard = await whole(["One two."], trim_start=trim)
            assert heard.audio[0] == pytest.approx(first, abs=0.01)

    played(play)


def test_one_row_says_what_comes() -> None:
    said, heard = run(whole(["Well", ", this is on", "e row. And", " it goes on"]))
    assert said == ["Well, this is one row. And it goes on"]
    assert len(heard.audio) == len(said[0]) * FRAME
    assert heard.error is None


def test_the_engine_is_told_how_fast_a_row_is_heard() -> None:
    async def play() -> None:
        text = live_text()
        async with reading_of(text, speed=2.0) as (engine, _, heard):
            text.feed("One two.")
            text.end()
            await until(lambda: heard.over, "the reading ends")
            assert [job.speed for job in engine.jobs] == [2.0]

    played(play)


def test_a_word_is_given_to_the_row_before_the_text_has_ended() -> None:
    async def play() -> None:
        text = live_text()
        async with reading_of(text) as (engine, reading, heard):
            text.feed("Hello there")
            await until(lambda: engine.jobs and engine.jobs[0].starved and heard.samples, "it is heard")
            assert engine.said() == ["Hello"]
            text.feed(" again.")
            await until(lambda: engine.said() == ["Hello there"] and engine.jobs[0].starved, "the next word is said")
            before = reading.progress
            assert reading.progress != before, "a text that has not come is no stall"
            async with stall_timeout(lambda: reading.progress, 5.0):
                await skip(1.0)

    run(play())


def test_silences_and_voices_part_the_text() -> None:
    said, heard = run(whole(["One [0.5", "s] two. [voice:", "ryan] Three. [pause] [1s]"]))
    assert said == ["One", "two.", "Three."]
    frames = sum(map(len, said))
    pause = PAUSE_SECONDS[Boundary.SENTENCE]
    assert pause
    expected = frames * FRAME + round((0.5 + pause + 0.75 + 1) * SAMPLE_RATE)
    assert len(heard.audio) == expected
    quiet = np.flatnonzero(heard.audio == 0)
    assert quiet[0] == 3 * FRAME, "the silence begins where the first row ends, to the sample"
    assert max(map(len, heard.samples)) <= SILENCE_SECONDS * SAMPLE_RATE


def test_silences_side_by_side_are_one() -> None:
    said, heard = run(whole(["[1ms][0s]" * 500, " One"]))
    assert said == ["One"]
    assert len(heard.audio) == 3 * FRAME + round(0.5 * SAMPLE_RATE)
    assert sum(not samples.any() for samples in heard.samples) <= 2, "the first one may be heard already"


@pytest.mark.parametrize("wait", [False, True])
def test_a_pause_is_as_long_whether_the_end_is_known_or_not_while_the_row_is_heard(
    monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    monkeypatch.setattr(Spoken, "quiet_frames", 5)

    async def play() -> None:
        text = live_text()
        async with reading_of(text) as (engine, _, heard):
            text.feed("It is late.")
            if wait:
                await until(lambda: engine.jobs and engine.jobs[0].starved and heard.samples, "it is heard")
            text.feed("\n\nAnd")
            text.end()
            await until(lambda: heard.over, "the reading ends")
            assert engine.said() == ["It is late.", "And"]
            loud = np.flatnonzero(heard.audio)
            pause = PAUSE_SECONDS[Boundary.PARAGRAPH]
            assert pause
            expected = round((pause + KEPT_AFTER_SECONDS) * SAMPLE_RATE)
            assert np.diff(loud).max() == pytest.approx(expected, abs=2)

    run(play())


def test_paragraphs_and_long_texts_are_rows_of_their_own() -> None:
    said, _ = run(whole(["A heading\n\nThe text. It goes", " on.\n- item one\n- item two"]))
    assert said == ["A heading", "The text. It goes on.", "item one", "item two"]
    sentence = "This one has seven words in it. "
    said, heard = run(whole([sentence * 40]))
    assert "".join(text + " " for text in said) == sentence * 40
    assert len(said) > 2
    assert all(text.endswith(".") for text in said)
    assert all(GOAL_TOKENS / 2 < len(text.split()) <= GOAL_TOKENS for text in said[:-1])
    assert heard.error is None
    assert len(sentence * 40) > AT_ONCE_CHARS


def test_a_sentence_that_nothing_follows_is_said_to_its_end() -> None:
    async def play() -> None:
        text = live_text()
        async with reading_of(text) as (engine, _, heard):
            text.feed("It is late. And")
            await until(lambda: engine.jobs and engine.jobs[0].starved, "the row waits")
            await skip(SETTLE_SECONDS + 1)
            assert engine.said() == ["It is late."], "the middle of a sentence is waited for"
            assert isinstance(engine.jobs[0], LiveJob)
            assert engine.jobs[0].awaits_text
            text.feed(" so it is.")
            await until(lambda: engine.jobs[0].starved, "the row waits again")
            await skip(SETTLE_SECONDS + 0.2)
            await until(lambda: engine.running == 0, "the row is free")
            assert engine.said() == ["It is late. And so it is."]
            assert not heard.over
            text.feed(" More")
            text.end()
            await until(lambda: heard.over, "the reading ends")
            assert engine.said() == ["It is late. And so it is.", "More"]

    run(play())


@pytest.mark.parametrize("others", [0, 1])
def test_a_row_without_text_is_given_up_soon_where_others_wait(others: int) -> None:
    async def play() -> None:
        text = live_text()
        async with reading_of(text) as (engine, _, heard):
            text.feed("It is late and")
            await until(lambda: engine.jobs and engine.jobs[0].starved, "the row waits")
            engine.others = others
            for _ in range(round((YIELD_SECONDS + 0.4) / 0.2)):
                await skip(0.2)
            if others:
                await until(lambda: engine.running == 0, "the row is free")
            else:
                assert engine.jobs[0].awaits_text
            assert not heard.over

    run(play())


def test_the_reading_ends_where_no_text_comes_for_too_long() -> None:
    async def play() -> None:
        text = live_text()
        async with reading_of(text) as (engine, _, heard):
            text.feed("It is late and")
            await until(lambda: engine.jobs and engine.jobs[0].starved, "the row waits")
            await skip(PATIENCE - 1)
            assert not heard.over
            await skip(1.5)
            await until(lambda: heard.over, "the reading ends")
            assert engine.said() == ["It is late and"]
            assert heard.error is None

    run(play())


def test_the_reading_ends_too_where_the_row_has_ended_before_its_text() -> None:
    async def play() -> None:
        text = live_text()
        async with reading_of(text, exact_frames=3) as (engine, _, heard):
            text.feed("It is late and")
            await until(lambda: engine.jobs and engine.jobs[0].over, "the row ends")
            await skip(1)
            await skip(PATIENCE + 1)
            await until(lambda: heard.over, "the reading ends")
            assert len(heard.audio) == 3 * FRAME

    run(play())


@pytest.mark.parametrize(
    ("parts", "said", "words"),
    [
        (["One. [voice:nobody] Two."], ["One."], "voices are"),
        (["One. [200s] two and", " [200s] three."], ["One.", "two and"], "300 seconds"),
        (["One. [400s] two"], ["One."], "300 seconds"),
        (["One two. ", f"{UNFIT} word"], ["One two."], "too long for this model"),
        (["[voice:ryan]"], [], "nothing to speak"),
        (["Привет, как дела, друзья мои дорогие"], ["Привет, как дела, друзья мои"], "letters"),
    ],
)
def test_what_is_wrong_is_said_once_the_text_before_it_is_heard(parts: list[str], said: list[str], words: str) -> None:
    async def play() -> None:
        text = live_text()
        async with reading_of(text) as (engine, _, heard):
            for part in parts:
                text.feed(part)
                await settle()
            text.end()
            await until(lambda: heard.over, "the reading ends")
            assert engine.said() == said
            assert words in str(heard.error)

    run(play())


def test_a_row_that_babbles_is_made_again_from_all_that_has_come() -> None:
    said, heard = run(whole(["runaway ", "words", " here"]))
    assert said[-1] == "runaway words here"
    assert len(said) == 2
    assert heard.error is None


def test_rows_without_any_audio_hold_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spoken, "_speak", lambda self, job: job.finish())
    said, heard = run(whole(["One\n\nTwo\n\nThree\n\nFour"]))
    assert said == ["One", "Two", "Three", "Four"]
    assert heard.error is None


def test_a_long_text_is_prepared_no_further_than_it_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    feed = Gradual.feed

    def noted(gradual: Gradual, text: str) -> list[str]:
        taken.append(text)
        return feed(gradual, text)

    monkeypatch.setattr(Gradual, "feed", noted)

    async def play() -> None:
        text = live_text()
        async with reading_of(text) as (engine, reading, _):
            monkeypatch.setattr(Job, "promote", lambda job: reading.stop())
            text.feed("This one has seven words in it. " * 400)
            await until(lambda: engine.jobs and engine.jobs[0].cancelled, "the first row is heard")
            assert max(map(len, taken)) <= AT_ONCE_CHARS
            assert sum(map(len, taken)) < 5000

    run(play())


def test_silence_before_the_first_word_hides_no_error_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(engine: Spoken, job: Job) -> None:
        raise QueueFull("full")

    monkeypatch.setattr(Spoken, "submit", full)
    _, heard = run(whole(["[0.5s] One two"]))
    assert isinstance(heard.error, QueueFull)
    assert not heard.samples, "the error is that of the beginning"


def test_a_reading_that_is_stopped_begins_nothing_more() -> None:
    async def play() -> None:
        text = live_text()
        async with reading_of(text) as (engine, reading, _):
            text.feed("One two three")
            await until(lambda: engine.jobs, "the row is begun")
            reading.stop()
            text.feed(" four. Five")
            await settle()
            assert engine.jobs[0].cancelled
            assert len(engine.jobs) == 1

    run(play())
