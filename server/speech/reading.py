"""A text being read out: its chunks are jobs of one engine, made side by side and heard in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count

import numpy as np
import regex
from numpy.typing import NDArray

from server.audio.joins import Joiner
from server.audio.stretch import TimeStretch
from server.engine.job import Job, JobError, RunawayError
from server.engine.prompt import InstructionError, PromptError
from server.errors import InvalidRequestError
from server.models.pool_entry import SpeechEngine
from server.speech.pieces import Piece, Said, pieces_of, prompt_of, smaller
from server.speech.plan import Plan
from server.text import tags
from server.text.chunks import MAX_TOKENS
from server.text.repetition import repeated
from server.text.sentences import Boundary

Samples = NDArray[np.float32]

PAUSE_SECONDS = {
    Boundary.CHARACTER: 0.0,
    Boundary.WORD: 0.0,
    Boundary.DOUBTFUL: 0.1,
    Boundary.CLAUSE: 0.1,
    Boundary.SENTENCE: 0.25,
    Boundary.PARAGRAPH: 0.6,
    Boundary.TEXT: None,
}
"""Silence after a chunk, beside the up to 0.15 s that joining leaves of the chunks' own: about 0.2, 0.4 and 0.75 s are
what readers make after clauses, sentences and paragraphs."""

CAPACITY = 5 * MAX_TOKENS
"""Frames that a job may have unread: all of a chunk, at 5 frames a token, so that it ends at the engine's pace however
slowly it is read. Else it would stop half-way and keep its slot. 600 frames are 4.6 MB at 24 kHz."""
SILENCE_SECONDS = 1
"""A silence is made in pieces of at most this length, so that none takes long to encode or to send."""


_UNSPEAKABLE = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
"""What takes tokens and no time to say: dashes, emoji."""


MAX_ATTEMPTS = 2
"""So often a chunk of which nobody has heard anything is given to the engine, which tries each several times."""


def chunk_seed(seed: int, number: int, attempt: int = 0) -> int:
    """Seed, in 63 bits, of a request's chunk and of each attempt at it, both counted from 0.

    The first has the request's own, as a short text has.
    """
    if number == attempt == 0:
        return seed
    key = (number, attempt) if attempt else (number,)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> 1)


@dataclass
class Utterance:
    """A chunk, numbered from 0 through the whole request, and its job: another one where it had to be made again."""

    said: Said
    number: int
    job: Job


def read(plan: Plan, engine: SpeechEngine) -> Reading:
    """The reading of what is planned; `Reading.begin` starts it.

    With an exact number of frames each part of speech is one chunk: that is what one row can do, so the text must fit
    the model.
    """
    manifest = engine.manifest
    request = object()

    def make_job(said: Said, number: int, attempt: int = 0) -> Job:
        text, delivery = said.chunk.text, said.delivery
        prompt = prompt_of(engine, text, delivery)
        room = manifest.sizes.talker.max_positions - len(prompt)
        if plan.exact_frames is not None and plan.exact_frames > room:
            raise InvalidRequestError(
                f"exact_frames must be at most {room} for this model and text", param="exact_frames"
            )
        judged = plan.exact_frames is None and not manifest.noise
        plain = _UNSPEAKABLE.sub(" ", text)
        tokens = engine.count_tokens(plain) if judged else None
        return Job(
            prompt,
            delivery.sampling,
            chunk_seed(plan.seed, number, attempt),
            plan.exact_frames or min(manifest.generation.max_new_tokens, room),
            CAPACITY,
            text_tokens=tokens,
            repeated_tokens=_repeated_tokens(plain, tokens or 0),
            spare=number > 0 or attempt > 0,
            request=request,
        )

    return Reading(engine, pieces_of(plan, engine), make_job, plan.most_frames)


def _repeated_tokens(text: str, tokens: int) -> int:
    words = text.lower().split()
    return round(tokens * repeated(words) / len(words)) if words else 0


class Reading:
    """Pieces under way: the one that is heard, and as many chunks ahead of it as the engine has rows.

    Only the first chunk is a job like any other. Those ahead of what is heard take slots that nobody waits for; each
    waits its turn as any other from when it is the next to be heard, so that it is never left out for good.

    Args:
        engine: what makes the jobs' audio.
        pieces: at least one, taken as they are needed; a chunk that ends with `Boundary.TEXT` ends a part of speech.
            Silences keep their length to the sample at any speed.
        make_job: the job of a chunk, its number and the attempt, both counted from 0; called in a thread. A chunk of
            which it raises a `PromptError` is cut into smaller ones.
        most_frames: codec frames of speech that are heard at most; None is all there are. It is no budget of a job, as
            the guard takes a job that uses its budget up for one that does not end.
    """

    def __init__(
        self,
        engine: SpeechEngine,
        pieces: Iterator[Piece],
        make_job: Callable[[Said, int, int], Job],
        most_frames: int | None = None,
    ) -> None:
        self._engine = engine
        self._left = most_frames
        self.capped = False
        """Whether `most_frames` ended the speech before its own end."""
        self._pieces = pieces
        self._make_job = make_job
        self._rate = engine.manifest.sizes.codec.sample_rate
        self._frame_samples = engine.manifest.sizes.codec.samples_per_frame
        self._cut: deque[Said] = deque()
        """Parts of a chunk that did not fit the model, before all that `pieces` has."""
        self._ahead: deque[Utterance | tags.Silence] = deque()
        self._more = True
        self._stopped = False
        self._numbers = count()
        self._first: Job | None = None
        self._heard = 0
        self._tokens = self._frames = 0

    @property
    def queue_seconds(self) -> float | None:
        """How long the first chunk waited for a row; None while it does."""
        return self._first.queue_seconds if self._first else None

    @property
    def usage(self) -> tuple[int, int]:
        """Tokens of the chunks heard so far, and codec frames made of them."""
        return self._tokens, self._frames

    @property
    def progress(self) -> object:
        """Something else whenever the chunk that is heard has got on; before its first frame, whenever any job has."""
        current = self._ahead[0] if self._ahead else None
        frames = current.job.frames if isinstance(current, Utterance) else 0
        return self._heard, frames, None if frames else self._engine.frames_made

    async def begin(self) -> None:
        """Hand the first chunk to the engine; errors are those of `make_job` and of `Engine.submit`."""
        await self._submit_next()

    async def _submit_next(self) -> None:
        """Take pieces up to the next chunk, which is handed to the engine."""
        while self._more:
            taken = await asyncio.to_thread(self._next)
            if taken is None:
                self._more = False
            elif self._more:  # else it was stopped meanwhile
                self._ahead.append(taken)
                if isinstance(taken, Utterance):
                    self._engine.submit(taken.job)
                    self._first = self._first or taken.job
                    return

    def _next(self) -> Utterance | tags.Silence | None:
        piece = self._cut.popleft() if self._cut else next(self._pieces, None)
        if not isinstance(piece, Said):
            return piece
        number = next(self._numbers)
        while True:
            try:
                return Utterance(piece, number, self._make_job(piece, number, 0))
            except InstructionError:
                raise
            except PromptError:
                if not (parts := smaller(piece, self._engine)):
                    raise
                piece, *others = parts
                self._cut.extendleft(reversed(others))

    async def __aiter__(self) -> AsyncIterator[Samples]:
        """The samples `[n]` of all pieces, with their pauses."""
        joiner, speed, stretch = Joiner(self._rate), 1.0, None
        while self._ahead:
            piece = self._ahead[0]
            if isinstance(piece, tags.Silence):
                left = tags.samples(piece.seconds, self._rate)
                while left:
                    yield np.zeros(length := min(left, SILENCE_SECONDS * self._rate), np.float32)
                    left -= length
            else:
                if piece.said.delivery.speed != speed:
                    if (rest := await _rest(stretch)).size:
                        yield rest
                    speed = piece.said.delivery.speed
                    stretch = self._stretch(speed)
                async for samples in self._joined(piece, joiner):
                    if (ready := await _stretched(stretch, samples)).size:
                        yield ready
                if piece.said.chunk.boundary is Boundary.TEXT or self.capped:
                    if (rest := await _rest(stretch)).size:
                        yield rest
                    joiner, stretch = Joiner(self._rate), self._stretch(speed)
            if self.capped:
                self.stop()
                return
            await self._look_ahead()
            self._ahead.popleft()
            self._heard += 1

    def _stretch(self, speed: float) -> TimeStretch | None:
        return TimeStretch(speed, self._rate) if speed != 1 else None

    async def _joined(self, utterance: Utterance, joiner: Joiner) -> AsyncIterator[Samples]:
        """A chunk's samples, its pause behind them."""
        chunk = utterance.said.chunk
        boundary = chunk.boundary
        utterance.job.promote()
        before = self._left
        async with aclosing(self._samples(utterance)) as made:
            async for samples in made:
                allowed = self._up_to_the_cap(samples)
                if (ready := joiner.feed(allowed, last=boundary is Boundary.TEXT)).size:
                    yield ready
                if self.capped:
                    break
                await self._look_ahead()
        cut_off = self.capped or utterance.job.frames >= utterance.job.max_frames
        if (rest := joiner.end(None if self.capped else PAUSE_SECONDS[boundary], cut_off=cut_off)).size:
            yield rest
        self._tokens += chunk.tokens
        self._frames += utterance.job.frames if before is None or self._left is None else before - self._left

    def _up_to_the_cap(self, samples: Samples) -> Samples:
        """What may be heard of a job's next samples `[n]`, whole frames."""
        if self._left is None:
            return samples
        allowed = samples[: self._left * self._frame_samples]
        self._left -= -(-len(allowed) // self._frame_samples)
        self.capped = len(allowed) < len(samples)
        return allowed

    async def _samples(self, utterance: Utterance) -> AsyncGenerator[Samples]:
        """A chunk's own samples; it is made again, from another seed, where the model has made no speech of it and
        nobody has heard any."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            last, heard = attempt == MAX_ATTEMPTS, False
            try:
                if not last and isinstance(utterance.job.error, RunawayError):
                    raise utterance.job.error
                async for samples in utterance.job:
                    heard = True
                    yield samples
                return
            except RunawayError:
                if heard or last:
                    raise
            job = await asyncio.to_thread(self._make_job, utterance.said, utterance.number, attempt)
            if self._stopped:
                raise JobError("the speech was stopped")
            utterance.job = job
            self._engine.submit(job)
            job.promote()

    async def _look_ahead(self) -> None:
        while self._more and sum(isinstance(piece, Utterance) for piece in self._ahead) <= self._engine.rows:
            if self._left is not None and len(self._ahead) > 1 and self._frames_ahead() >= self._left:
                return
            await self._submit_next()

    def _frames_ahead(self) -> int:
        """Frames that have been made behind what is heard."""
        return sum(piece.job.frames for piece in list(self._ahead)[1:] if isinstance(piece, Utterance))

    def stop(self) -> None:
        """End every job wherever it is, and begin no other; harmless after the end."""
        self._more, self._stopped = False, True
        for piece in self._ahead:
            if isinstance(piece, Utterance):
                piece.job.cancel()


async def _stretched(stretch: TimeStretch | None, samples: Samples) -> Samples:
    """In a thread, since stretching a second of audio may take some 20 ms."""
    return samples if stretch is None else await asyncio.to_thread(stretch.process, samples)


async def _rest(stretch: TimeStretch | None) -> Samples:
    return np.zeros(0, np.float32) if stretch is None else await asyncio.to_thread(stretch.finish)
