"""Reads a planned text out, all of which is known: it is cut into chunks as they are needed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from server.engine.job import Job, JobError, Listener
from server.engine.manner import CloneError, InstructionError, PromptError
from server.models.pool_entry import SpeechEngine
from server.speech.pieces import Piece, VoicedChunk, pieces_of, prompt_of, smaller
from server.speech.plan import Plan
from server.speech.reading import CAPACITY, ChunkJob, Reading, chunk_seed, frames_of, is_judged, tokens_to_say
from server.text import tags


def reading_of(plan: Plan, engine: SpeechEngine) -> PlannedReading:
    """Make the reading of a plan; `PlannedReading.begin` starts it.

    With an exact number of frames each part of speech is one chunk, so that its text must fit the model.
    """
    listener = Listener()

    def make_job(voiced: VoicedChunk, number: int, attempt: int = 0) -> Job:
        text, delivery = voiced.chunk.text, voiced.delivery
        prompt = prompt_of(engine, text, delivery)
        tokens, repeats = tokens_to_say(engine, text) if is_judged(plan, engine) else (None, 0)
        return Job(
            prompt,
            delivery.sampling,
            chunk_seed(plan.seed, number, attempt),
            frames_of(plan, engine, len(prompt)),
            CAPACITY,
            text_tokens=tokens,
            repeated_tokens=repeats,
            spare=number > 0 or attempt > 0,
            listener=listener,
            number=number,
            speed=delivery.speed,
        )

    return PlannedReading(
        engine, pieces_of(plan, engine), make_job, plan.most_frames, exact=plan.sentences, trim_start=plan.trim_start
    )


class PlannedReading(Reading):
    """The reading of pieces that are there: as many chunks are begun ahead of the one that is heard as there are rows.

    Args:
        engine: the engine that makes the jobs' audio.
        pieces: at least one piece; they are taken as they are needed.
        make_job: makes the job of a chunk, from the chunk, its number and the attempt, both counted from 0; it is
            called in a thread. A chunk for which it raises a `PromptError` is cut into smaller ones.
        most_frames, exact, trim_start: as for `Reading`.
    """

    def __init__(
        self,
        engine: SpeechEngine,
        pieces: Iterator[Piece],
        make_job: Callable[[VoicedChunk, int, int], Job],
        most_frames: int | None = None,
        *,
        exact: bool = False,
        trim_start: bool = False,
    ) -> None:
        super().__init__(engine, most_frames, exact=exact, trim_start=trim_start)
        self._pieces = pieces
        self._make_job = make_job
        self._cut: deque[VoicedChunk] = deque()
        """Parts of a chunk that did not fit the model; they come before what is left of `pieces`."""

    async def begin(self) -> None:
        """Hand the first chunk to the engine; raises the errors of `make_job` and of `Engine.submit`."""
        await self._submit_next()

    async def _submit_next(self) -> None:
        """Take pieces up to the next chunk, and hand its job to the engine."""
        while self._more:
            taken = await asyncio.to_thread(self._next)
            if taken is None:
                self._more = False
            elif self._more:  # the reading may have been stopped meanwhile
                self._ahead.append(taken)
                if isinstance(taken, ChunkJob):
                    self._engine.submit(taken.job)
                    self._first = self._first or taken.job
                    return

    def _next(self) -> ChunkJob | tags.Silence | None:
        piece = self._cut.popleft() if self._cut else next(self._pieces, None)
        if not isinstance(piece, VoicedChunk):
            return piece
        number = next(self._numbers)
        while True:
            try:
                return ChunkJob(piece, number, self._make_job(piece, number, 0))
            except (InstructionError, CloneError):  # a shorter text would not help
                raise
            except PromptError:
                if not (parts := smaller(piece, self._engine)):
                    raise
                piece, *others = parts
                self._cut.extendleft(reversed(others))

    async def _once_more(self, chunk_job: ChunkJob, attempt: int) -> Job:
        job = await asyncio.to_thread(self._make_job, chunk_job.voiced, chunk_job.number, attempt)
        if self._stopped:
            raise JobError("the speech was stopped")
        return job

    async def _look_ahead(self) -> None:
        while self._more and sum(isinstance(piece, ChunkJob) for piece in self._ahead) <= self._engine.rows:
            if self._left is not None and len(self._ahead) > 1 and self._frames_ahead() >= self._left:
                return
            await self._submit_next()

    def _frames_ahead(self) -> int:
        """Count the frames that have been made of the chunks behind the one that is heard."""
        return sum(piece.job.frames for piece in list(self._ahead)[1:] if isinstance(piece, ChunkJob))
