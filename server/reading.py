"""A text being read out: its chunks are jobs of one engine, made side by side and heard in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from server.audio.joins import Joiner
from server.engine.job import Job
from server.speech_engine import SpeechEngine
from server.text.chunks import MAX_TOKENS, Chunk
from server.text.sentences import Boundary

Samples = NDArray[np.float32]

PAUSE_SECONDS = {
    Boundary.CHARACTER: 0.0,
    Boundary.WORD: 0.0,
    Boundary.CLAUSE: 0.1,
    Boundary.SENTENCE: 0.25,
    Boundary.PARAGRAPH: 0.6,
    Boundary.TEXT: None,
}
"""Silence after a chunk, beside the up to 0.15 s that joining leaves of the chunks' own: about 0.2, 0.4 and 0.75 s are
what readers make after clauses, sentences and paragraphs."""

CHUNK_CAPACITY = 5 * MAX_TOKENS
"""Frames that a chunk of several may have unread: all of one, at 5 frames a token. Else it would stop half-way, keep
its slot and be no further when it is heard. 600 frames are 4.6 MB at 24 kHz."""


def chunk_seed(seed: int, number: int) -> int:
    """Seed, in 63 bits, of a request's chunk, counted from 0; the first has the request's own, as a short text has."""
    if number == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(1, np.uint64)[0] >> 1)


class Reading:
    """Chunks under way: the one that is heard, and as many ahead of it as the engine has rows.

    Only the first is a job like any other. Those ahead of what is heard take slots that nobody waits for; each waits
    its turn as any other from when it is the next to be heard, so that it is never left out for good.

    Args:
        engine: what makes the jobs' audio.
        chunks: at least one, taken as they are needed.
        make_job: the job of a chunk and its number, counted from 0; called in a thread.
    """

    def __init__(self, engine: SpeechEngine, chunks: Iterator[Chunk], make_job: Callable[[Chunk, int], Job]) -> None:
        self._engine = engine
        self._chunks = enumerate(chunks)
        self._make_job = make_job
        self._joiner = Joiner(engine.manifest.sizes.codec.sample_rate)
        self._ahead: deque[tuple[Job, Boundary]] = deque()
        self._more = True
        self._heard = 0
        self._first: Job | None = None

    @property
    def queue_seconds(self) -> float | None:
        """How long the first chunk waited for a row; None while it does."""
        return self._first.queue_seconds if self._first else None

    @property
    def progress(self) -> object:
        """Something else whenever the chunk that is heard has got on; before its first frame, whenever any job has."""
        frames = self._ahead[0][0].frames if self._ahead else 0
        return self._heard, frames, None if frames else self._engine.frames_made

    async def begin(self) -> None:
        """Hand the first chunk to the engine; errors are those of `make_job` and of `Engine.submit`."""
        await self._submit_next()

    async def _submit_next(self) -> None:
        job, boundary = await asyncio.to_thread(self._next)
        if self._more:
            self._engine.submit(job)
            self._first = self._first or job
            self._ahead.append((job, boundary))
            self._more = boundary is not Boundary.TEXT

    def _next(self) -> tuple[Job, Boundary]:
        number, chunk = next(self._chunks)
        return self._make_job(chunk, number), chunk.boundary

    async def __aiter__(self) -> AsyncIterator[Samples]:
        """The samples `[n]` of all chunks, with their pauses."""
        while self._ahead:
            job, boundary = self._ahead[0]
            job.promote()
            async for samples in job:
                if (ready := self._joiner.feed(samples, last=boundary is Boundary.TEXT)).size:
                    yield ready
                await self._look_ahead()
            if (rest := self._joiner.end(PAUSE_SECONDS[boundary])).size:
                yield rest
            await self._look_ahead()
            self._ahead.popleft()
            self._heard += 1

    async def _look_ahead(self) -> None:
        while self._more and len(self._ahead) <= self._engine.rows:
            await self._submit_next()

    def stop(self) -> None:
        """End every job wherever it is, and begin no other; harmless after the end."""
        self._more = False
        for job, _ in self._ahead:
            job.cancel()
