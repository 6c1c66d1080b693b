"""Reads a text out while it arrives: one row speaks it as it comes, and waits where it has not come yet.

A row ends with its paragraph, before a silence or another voice, and at the end of a sentence once it is as long as a
chunk; the next one goes on behind it, and is begun while it is heard. So a text of any length may come. Where the text
stops coming the row is given up in time: at once behind a whole sentence that has been said, and elsewhere when others
wait for a row, or after the time that is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from server.audio.pcm import Samples
from server.engine.job import Job, JobError, Listener
from server.engine.live import LiveJob
from server.engine.manner import PromptError
from server.errors import InvalidRequestError
from server.models.pool_entry import SpeechEngine
from server.speech.delivery import Delivery
from server.speech.live_plan import LivePlan
from server.speech.pieces import VoicedChunk
from server.speech.reading import CAPACITY, ChunkJob, Reading, chunk_seed, frames_of, is_judged, tokens_to_say
from server.speech.wording import check_letters
from server.text import tags
from server.text.chunks import GOAL_TOKENS, MAX_TOKENS, Chunk
from server.text.gradual import Gradual
from server.text.lines import PARAGRAPH
from server.text.sentences import Boundary, ends_whole
from server.text.speakable import is_speakable

SETTLE_SECONDS = 0.3
"""A sentence that nothing has followed for so long is taken for whole; words of a language model come 15 to 100 ms
apart."""
YIELD_SECONDS = 1.0
"""How long a row that waits for text keeps its slot while others wait for one."""
GRACE_SECONDS = 5.0
"""How much longer the engine waits for text: it ends what nobody else has ended."""
LOOK_SECONDS = 0.1
"""How often it is looked whether a row waits for text, while none comes."""
AHEAD = 2
"""Rows of one text at most, the one that is heard and the next."""
MOST_TOKENS = 2 * MAX_TOKENS
"""The most tokens of a row in which nothing ends."""
AT_ONCE_CHARS = 200
"""Characters that are prepared and given to a row before other tasks have their turn: 1000 may take the event loop's
20 ms. So a long text is prepared no further than its rows have come."""
LEAST_LETTERS = 20
"""Letters of a text before it is said to be in letters that the model cannot read."""

Arriving = Callable[[], Awaitable[list[tags.Part | tags.TagError] | None]]
"""Waits for text, and gives all that has come; None at its end. It may be cancelled, and loses nothing."""


@dataclass(eq=False)
class LiveRow(ChunkJob):
    """A row whose text arrives while it speaks; `voiced` has the text, and the boundary, once that has ended."""

    job: LiveJob
    text: str = ""
    """What has come of it so far."""
    tokens: int = 0
    ended: bool = False

    @property
    def idle(self) -> bool:
        """Whether the engine makes nothing more of it unless text comes, or not even then."""
        return self.job.starved or self.job.over

    def feed(self, text: str, tokens: int) -> None:
        """Add some text; raises `PromptError` if the model has no room for it."""
        self.job.feed(text)
        self.text += text
        self.tokens += tokens

    def end(self, boundary: Boundary) -> None:
        """No more text will come, because this boundary has."""
        self.voiced = VoicedChunk(Chunk(self.text, self.tokens, boundary), self.voiced.delivery)
        self.ended = True
        self.job.end()


class LiveReading(Reading):
    """The reading of a text that arrives over time; what there is of it is heard before any error.

    Args:
        engine: makes the rows' audio.
        plan: how the text is spoken.
        arriving: where the text comes from.
        patience: seconds without text, where nothing is left to say, after which the reading ends.
    """

    def __init__(self, engine: SpeechEngine, plan: LivePlan, arriving: Arriving, patience: float) -> None:
        super().__init__(engine, plan.plan.most_frames, trim_start=plan.plan.trim_start)
        self._plan, self._voiced = plan.plan, plan.voiced
        self._arriving, self._patience = arriving, patience
        self._listener = Listener()
        self._voice: str | None = None
        self._delivery, preparation = plan.voiced(None)
        self._gradual = Gradual(preparation)
        self._row: LiveRow | None = None
        """The row whose text comes."""
        self._unsaid = ""
        """Marks that have come before the first word of a row."""
        self._changed = asyncio.Event()
        self._feeding: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._awaiting = False

    @property
    def progress(self) -> object:
        """Changes as for `Reading`, and all the time while nothing but text is waited for."""
        row = self._row
        if self._awaiting or (row is not None and self._ahead[0] is row and row.job.starved):
            return object()
        return super().progress

    async def begin(self) -> None:
        """Wait for the first word, and hand its row to the engine; raises what `PlannedReading.begin` does."""
        self._feeding = asyncio.create_task(self._feed())
        try:
            await self._until(lambda: self._first is not None)
            if self._first is None and self._error:
                raise self._error
        except BaseException:
            self.stop()
            raise

    async def __aiter__(self) -> AsyncIterator[Samples]:
        """Yield samples as `Reading` does; raises what is wrong with the text once the text before it is heard."""
        said = False
        async for samples in super().__aiter__():
            said = True
            yield samples
        if self._error:
            raise self._error
        if not said:
            raise InvalidRequestError("text has nothing to speak; send words, or silences of some length", param="text")

    def stop(self) -> None:
        """Cancel every job, and take no more text; it may be called after the end too."""
        super().stop()
        if self._feeding is not None:
            self._feeding.cancel()

    async def _look_ahead(self) -> None:
        self._changed.set()  # a row may be begun for each that has been heard

    async def _await_following(self) -> None:
        await self._look_ahead()
        self._awaiting = True
        try:
            await self._until(lambda: len(self._ahead) > 1)
        finally:
            self._awaiting = False

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait until this is true, or all text has been taken."""
        while self._more and not condition():
            self._changed.clear()
            await self._changed.wait()

    # The text's side.

    async def _feed(self) -> None:
        """Take the text in as it comes, to its end."""
        try:
            while (parts := await self._next_parts()) is not None:
                for part in parts:
                    await self._take(part)
                    await asyncio.sleep(0)  # of a thousand characters some hundred may be tags
            await self._end_text(Boundary.TEXT)
        except Exception as error:
            self._error = error
            self._end_row(Boundary.TEXT)
        self._more = False
        self._changed.set()

    async def _next_parts(self) -> list[tags.Part | tags.TagError] | None:
        """What comes next; None at the end of the text, or where it has not come for too long."""
        clock = asyncio.get_running_loop().time
        since = clock()
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    return await self._arriving()
            except TimeoutError:
                waited = clock() - since
            if self._row is not None and not self._row.idle:
                since = clock()
            elif waited >= self._patience:
                return None
            elif waited >= SETTLE_SECONDS and self._is_whole():
                await self._end_text(Boundary.SENTENCE)
            elif waited >= YIELD_SECONDS and self._holds_a_slot and self._engine.waiting:
                await self._end_text(Boundary.CLAUSE)

    @property
    def _holds_a_slot(self) -> bool:
        return self._row is not None and self._row.job.queue_seconds is not None

    def _is_whole(self) -> bool:
        """Whether what has come, and is not over, ends with a sentence."""
        text = f"{self._row.text if self._row else ''}{self._gradual.held}"
        return ends_whole(text, self._gradual.preparation.language)

    async def _take(self, part: tags.Part | tags.TagError) -> None:
        if not isinstance(part, tags.Spoken):
            await self._end_text(Boundary.TEXT)
            if isinstance(part, tags.TagError):
                raise InvalidRequestError(str(part), param="text")
            last = self._ahead[-1] if len(self._ahead) > 1 else None  # the first one may be heard already
            if isinstance(last, tags.Silence):
                self._ahead[-1] = tags.Silence(last.seconds + part.seconds)
            else:
                self._ahead.append(part)
            self._changed.set()
            return
        if part.voice != self._voice:
            await self._end_text(Boundary.SENTENCE if self._is_whole() else Boundary.CLAUSE)
            self._delivery, preparation = self._voiced(part.voice)
            self._gradual, self._voice = Gradual(preparation), part.voice
        for start in range(0, len(part.text), AT_ONCE_CHARS):
            for text in self._gradual.feed(part.text[start : start + AT_ONCE_CHARS]):
                await self._say(text)
            if self._gradual.letters.all >= LEAST_LETTERS:
                check_letters(self._gradual.letters, self._engine.manifest)
            await asyncio.sleep(0)

    async def _say(self, text: str) -> None:
        """Give some prepared text to the row, or to a new one."""
        if text == PARAGRAPH:
            self._end_row(Boundary.PARAGRAPH)
            return
        tokens = self._engine.count_tokens(text)
        if self._row is not None:
            if (end := self._end_of_row(self._row, tokens)) is not None:
                self._end_row(end)
            else:
                try:
                    self._row.feed(text, tokens)
                    return
                except PromptError:
                    self._end_row(Boundary.WORD)
        self._unsaid = f"{self._unsaid}{text}".lstrip()
        if is_speakable(self._unsaid):
            await self._begin_row(tokens)

    def _end_of_row(self, row: LiveRow, tokens: int) -> Boundary | None:
        """Where a row ends before so many tokens more; None if it goes on."""
        after = row.tokens + tokens
        if after > GOAL_TOKENS and ends_whole(row.text, self._gradual.preparation.language):
            return Boundary.SENTENCE
        if after > MAX_TOKENS and row.text.endswith((",", ";", ":")):
            return Boundary.CLAUSE
        return Boundary.WORD if after > MOST_TOKENS else None

    async def _begin_row(self, tokens: int) -> None:
        await self._until(lambda: sum(isinstance(piece, LiveRow) for piece in self._ahead) < AHEAD)
        number, delivery = next(self._numbers), self._delivery
        job = await asyncio.to_thread(self._job, delivery, number, 0)
        row = LiveRow(VoicedChunk(Chunk("", 0, Boundary.WORD), delivery), number, job)
        text, self._unsaid = self._unsaid, ""
        row.feed(text, tokens)
        self._engine.submit(job)
        self._first = self._first or job
        self._row = row
        self._ahead.append(row)
        self._changed.set()

    def _job(self, delivery: Delivery, number: int, attempt: int) -> LiveJob:
        engine, plan = self._engine, self._plan
        text = engine.live_text(
            speaker=delivery.speaker,
            language=delivery.language,
            instruction=delivery.instruction,
            reference=delivery.reference,
        )
        return LiveJob(
            text,
            delivery.sampling,
            chunk_seed(plan.seed, number, attempt),
            frames_of(plan, engine, text.prompt_positions),
            CAPACITY,
            patience=self._patience + GRACE_SECONDS,
            measure=partial(tokens_to_say, engine) if is_judged(plan, engine) else None,
            spare=number > 0 or attempt > 0,
            listener=self._listener,
            number=number,
            speed=delivery.speed,
        )

    async def _once_more(self, chunk_job: ChunkJob, attempt: int) -> Job:
        if not isinstance(chunk_job, LiveRow):
            raise TypeError("a live reading has live rows alone")
        job = await asyncio.to_thread(self._job, chunk_job.voiced.delivery, chunk_job.number, attempt)
        if self._stopped:
            raise JobError("the speech was stopped")
        job.feed(chunk_job.text)
        if chunk_job.ended:
            job.end()
        return job

    async def _end_text(self, boundary: Boundary) -> None:
        """What follows has nothing to do with what has come."""
        for text in self._gradual.end():
            if text != PARAGRAPH:
                await self._say(text)
        self._end_row(boundary)

    def _end_row(self, boundary: Boundary) -> None:
        self._unsaid = ""
        if self._row is not None:
            self._row.end(boundary)
            self._row = None
