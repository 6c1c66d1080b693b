"""Reads a text out: its chunks are jobs of one engine, which are made side by side and heard in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count

import numpy as np
import regex

from server.audio.joins import Joiner
from server.audio.pcm import Samples
from server.engine.job import Job, RunawayError
from server.errors import InvalidRequestError
from server.models.pool_entry import SpeechEngine
from server.speech.pieces import VoicedChunk
from server.speech.plan import Plan
from server.speech.timeline import Kind, Timeline
from server.text import tags
from server.text.chunks import MAX_TOKENS
from server.text.repetition import repeated
from server.text.sentences import Boundary

PAUSE_SECONDS = {
    Boundary.CHARACTER: 0.0,
    Boundary.WORD: 0.0,
    Boundary.DOUBTFUL: 0.1,
    Boundary.CLAUSE: 0.1,
    Boundary.SENTENCE: 0.25,
    Boundary.PARAGRAPH: 0.6,
    Boundary.TEXT: None,
}
"""Seconds of silence after a chunk, beside the up to 0.15 s that joining leaves of the chunks' own. Together they are
about what readers make after clauses (0.2 s), sentences (0.4 s) and paragraphs (0.75 s)."""

CAPACITY = 5 * MAX_TOKENS
"""Frames of audio that a job may have unread: all of a chunk, at 5 frames a token. So a job ends at the engine's pace
however slowly it is read; else it would stop half-way and keep its slot. 600 frames are 4.6 MB at 24 kHz."""
SILENCE_SECONDS = 1
"""The longest piece in which a silence is made, so that no piece takes long to encode or to send."""


_UNSPEAKABLE = regex.compile(r"[^\p{L}\p{M}\p{N}]+")
"""Matches what takes tokens and no time to say, such as dashes and emoji."""


MAX_ATTEMPTS = 2
"""How often a chunk is given to the engine, which retries it by itself, as long as nobody has heard any of it."""


def chunk_seed(seed: int, number: int, attempt: int = 0) -> int:
    """Make the seed, of 63 bits, of an attempt at a chunk; chunks of a request and attempts are counted from 0.

    The first attempt at the first chunk has the request's own seed, as a short text has.
    """
    if number == attempt == 0:
        return seed
    key = (number, attempt) if attempt else (number,)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> 1)


@dataclass
class ChunkJob:
    """A chunk, its number in the request, counted from 0, and its job, which another one replaces if it fails."""

    voiced: VoicedChunk
    number: int
    job: Job


def frames_of(plan: Plan, engine: SpeechEngine, positions: int) -> int:
    """The most codec frames of a job whose prompt takes so many positions.

    Raises:
        InvalidRequestError: the plan wants more.
    """
    manifest = engine.manifest
    room = min(manifest.sizes.talker.max_positions - positions, engine.max_frames)
    if plan.exact_frames is not None and plan.exact_frames > room:
        raise InvalidRequestError(f"exact_frames must be at most {room} for this model and text", param="exact_frames")
    return plan.exact_frames or min(manifest.generation.max_new_tokens, room)


def is_judged(plan: Plan, engine: SpeechEngine) -> bool:
    """Whether the runaway guard watches the jobs of a plan."""
    return plan.exact_frames is None and not engine.manifest.noise


def tokens_to_say(engine: SpeechEngine, text: str) -> tuple[int, int]:
    """Tokens of a text that take time to say, and how many of these repeat what stands before them."""
    plain = _UNSPEAKABLE.sub(" ", text)
    tokens = engine.count_tokens(plain)
    words = plain.lower().split()
    return tokens, round(tokens * repeated(words) / len(words)) if words else 0


class Reading(ABC):
    """The pieces under way: the one that is heard, and those ahead of it, which a subclass begins.

    The chunk that is heard waits in the engine's queue like any other job, and so does the next one while nothing is
    being made. Chunks further ahead take slots that no other job waits for. A chunk that ends with `Boundary.TEXT` ends
    a part of speech.
    Silences keep their length to the sample at any speed.

    Args:
        engine: the engine that makes the jobs' audio.
        most_frames: the most codec frames of speech that are heard; None is no limit. It is not the budget of a job,
            because the guard takes a job that uses up its budget for one that does not end.
        exact: whether each chunk is stretched by itself, so that it is known to the sample where it begins and ends.
        trim_start: whether the silence that the voice makes before its first word is left out.
    """

    def __init__(
        self, engine: SpeechEngine, most_frames: int | None = None, *, exact: bool = False, trim_start: bool = False
    ) -> None:
        self._engine = engine
        self._left = most_frames
        self._exact = exact
        self._trim_start = trim_start
        self.capped = False
        """Whether `most_frames` has ended the speech before its own end."""
        self.sample_rate = engine.manifest.sizes.codec.sample_rate
        self.timeline = Timeline(self.sample_rate)
        """What is heard; a piece ends in it once its last samples have been taken."""
        self._frame_samples = engine.manifest.sizes.codec.samples_per_frame
        self._ahead: deque[ChunkJob | tags.Silence] = deque()
        self._more = True
        self._stopped = False
        self._numbers = count()
        self._first: Job | None = None
        self._heard = 0
        self._tokens = self._frames = 0

    @property
    def queue_seconds(self) -> float | None:
        """Seconds that the first chunk waited for a row; None while it waits."""
        return self._first.queue_seconds if self._first else None

    @property
    def usage(self) -> tuple[int, int]:
        """Numbers of tokens of the chunks heard so far, and of codec frames made of them."""
        return self._tokens, self._frames

    @property
    def progress(self) -> object:
        """Changes when the chunk that is heard makes progress; before its first frame, when any job does."""
        current = self._ahead[0] if self._ahead else None
        frames = current.job.frames if isinstance(current, ChunkJob) else 0
        return self._heard, frames, None if frames else self._engine.frames_made

    @abstractmethod
    async def begin(self) -> None:
        """Hand the first chunk to the engine; raises why it cannot be said, and the errors of `Engine.submit`."""

    @abstractmethod
    async def _look_ahead(self) -> None:
        """Begin the pieces that are to be made ahead of the one that is heard."""

    @abstractmethod
    async def _once_more(self, chunk_job: ChunkJob, attempt: int) -> Job:
        """Make another job of a chunk, from another seed; raises `JobError` if the speech was stopped meanwhile."""

    async def __aiter__(self) -> AsyncIterator[Samples]:
        """Yield the samples `[n]` of all pieces, with their pauses."""
        joiner, timeline = Joiner(self.sample_rate, trim_start=self._trim_start), self.timeline
        while self._ahead:
            piece = self._ahead[0]
            if isinstance(piece, tags.Silence):
                left = tags.samples(piece.seconds, self.sample_rate)
                while left:
                    yield timeline.silence(length := min(left, SILENCE_SECONDS * self.sample_rate))
                    left -= length
                timeline.end()
            else:
                if (rest := await timeline.change_speed(piece.voiced.delivery.speed)).size:
                    yield rest
                async for samples in self._joined(piece, joiner):
                    yield samples
                if piece.voiced.chunk.boundary is Boundary.TEXT or self.capped:
                    if (rest := await timeline.finish()).size:
                        yield rest
                    joiner = Joiner(self.sample_rate)
            if self.capped:
                self.stop()
                return
            await self._await_following()
            self._ahead.popleft()
            self._heard += 1
        if (rest := await timeline.finish()).size:
            yield rest

    async def _joined(self, chunk_job: ChunkJob, joiner: Joiner) -> AsyncIterator[Samples]:
        """Yield what is heard of a chunk and of the pause behind it."""
        chunk_job.job.promote()
        before = self._left
        async with aclosing(self._samples(chunk_job)) as made:
            async for samples in made:
                allowed = self._up_to_the_cap(samples)
                chunk = chunk_job.voiced.chunk
                ready = joiner.feed(allowed, last=chunk.boundary is Boundary.TEXT)
                if (heard := await self.timeline.feed(ready, "speech", chunk.text)).size:
                    yield heard
                if self.capped:
                    break
                await self._look_ahead()
        chunk = chunk_job.voiced.chunk
        cut_off = self.capped or chunk_job.job.frames >= chunk_job.job.max_frames
        pause = None if self.capped else PAUSE_SECONDS[chunk.boundary]
        rest = joiner.end(pause, cut_off=cut_off)
        spoken = rest.size - round((pause or 0) * self.sample_rate)
        if (heard := await self._last(rest[:spoken], "speech", chunk.text)).size:
            yield heard
        self.timeline.end()
        if (heard := await self._last(rest[spoken:], "join")).size:
            yield heard
        self.timeline.end()
        self._tokens += chunk.tokens
        self._frames += chunk_job.job.frames if before is None or self._left is None else before - self._left

    async def _last(self, samples: Samples, kind: Kind, text: str = "") -> Samples:
        """Take the last samples `[n]` of a piece; return the samples `[m]` that can be heard now."""
        heard = await self.timeline.feed(samples, kind, text)
        return np.concatenate((heard, await self.timeline.finish())) if self._exact else heard

    def _up_to_the_cap(self, samples: Samples) -> Samples:
        """Cut a job's next samples `[n]`, which are whole frames, to what may be heard of them."""
        if self._left is None:
            return samples
        allowed = samples[: self._left * self._frame_samples]
        self._left -= -(-len(allowed) // self._frame_samples)
        self.capped = len(allowed) < len(samples)
        return allowed

    async def _samples(self, chunk_job: ChunkJob) -> AsyncGenerator[Samples]:
        """Yield a chunk's own samples.

        If the model makes no speech of the chunk and nobody has heard any of it, it is made again from another seed.
        """
        for attempt in range(1, MAX_ATTEMPTS + 1):
            last, heard = attempt == MAX_ATTEMPTS, False
            try:
                if not last and isinstance(chunk_job.job.error, RunawayError):
                    raise chunk_job.job.error
                async for samples in chunk_job.job:
                    heard = True
                    yield samples
                return
            except RunawayError:
                if heard or last:
                    raise
            chunk_job.job = job = await self._once_more(chunk_job, attempt)
            self._engine.submit(job)
            job.promote()

    async def _await_following(self) -> None:
        """Wait until it is known what follows the piece that is heard, if anything does."""
        await self._look_ahead()

    def stop(self) -> None:
        """Cancel every job, and begin no other; it may be called after the end too."""
        self._more, self._stopped = False, True
        for piece in self._ahead:
            if isinstance(piece, ChunkJob):
                piece.job.cancel()
