"""One request's row: what to say and how to sample it, and the bounded way its audio takes out of the engine.

The engine thread writes, one consumer reads, either from a thread (`for pcm in job`) or from an event loop
(`async for pcm in job`). A job knows nothing of other jobs, of HTTP, or of encodings.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from server.engine.prompt import Prompt
from server.manifest import GenerationDefaults

Floats = NDArray[np.float32]
PcmChunk = NDArray[np.float32]


class JobError(RuntimeError):
    """A job that ended before its audio was whole."""


class RunawayError(JobError):
    """The model makes no speech of this text, or does not end it, however often it is tried."""


class TextLateError(JobError):
    """The text of a job has not come for longer than the job waits."""


RETRY_TEMPERATURE, RETRY_TOP_K = 0.6, 20
"""How code 0 is drawn in a row that was greedy and had to go back: the same codes would come again otherwise."""


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn; `temperature` 0 is greedy, `top_k` 0 and `top_p` 1 switch their filter off."""

    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    predictor_temperature: float
    predictor_top_k: int
    predictor_top_p: float

    @classmethod
    def of(cls, defaults: GenerationDefaults) -> Sampling:
        """What a bundle draws with, if nobody says otherwise."""
        return cls(
            defaults.temperature,
            defaults.top_k,
            defaults.top_p,
            defaults.repetition_penalty,
            defaults.subtalker_temperature,
            defaults.subtalker_top_k,
            defaults.subtalker_top_p,
        )

    def livelier(self) -> Sampling:
        """The same, unless every seed draws the same codes with it: then with the least of a choice."""
        talker = self.temperature == 0 or self.top_k == 1
        if not (talker and (self.predictor_temperature == 0 or self.predictor_top_k == 1)):
            return self
        return replace(self, temperature=RETRY_TEMPERATURE, top_k=RETRY_TOP_K)


@dataclass(eq=False)
class Listener:
    """Who hears the jobs of one request, one after another."""

    served: float | None = None
    """Until when there is something to hear of the jobs that have been made, by `time.perf_counter`; None before the
    first of them has a slot."""

    _next: int = 0
    """The number of the first job that has not been made."""
    _ahead: dict[int, float] = field(default_factory=dict)
    """Seconds of jobs behind that one, by their numbers."""

    def hear(self, number: int, seconds: float, now: float) -> None:
        """Note that a job has been made whole; where nothing was left to hear it is heard from now on.

        What lies behind a job that is still to be made cannot be heard before it.
        """
        self._ahead[number] = seconds
        while (made := self._ahead.pop(self._next, None)) is not None:
            self.served = now if self.served is None else max(self.served + made, now)
            self._next += 1


class Job:
    """A row to be made into audio.

    Args:
        prompt: what the talker is fed.
        sampling: how codes are drawn.
        seed: of this row's random stream; the same seed gives the same codes.
        max_frames: codec frames after which the job ends as if the model had ended it.
        capacity: frames of unread audio at which the engine stops working on this row, until half of it is read.
        text_tokens: tokens of the text to be said, by which the runaway guard judges the row; None keeps it out.
        repeated_tokens: how many of these repeat what stands before them, so that the speech may do so too.
        spare: whether it is made in advance, so that it may only have a slot that no other job waits for as long as
            another job of its listener has one or waits; and no place in the queue counts.
        listener: who hears it, the same for all jobs of one request; None where there is no other job.
        number: of the job among those of its listener, in the order in which they are heard, counted from 0. A job that
            is made in place of another one, which failed, has the same number.
        speed: how many seconds of its audio the listener hears in a second.
    """

    def __init__(
        self,
        prompt: Prompt,
        sampling: Sampling,
        seed: int,
        max_frames: int,
        capacity: int = 64,
        *,
        text_tokens: int | None = None,
        repeated_tokens: int = 0,
        spare: bool = False,
        listener: Listener | None = None,
        number: int = 0,
        speed: float = 1.0,
    ) -> None:
        self.prompt = prompt
        self.sampling = sampling
        self.seed = seed
        self.max_frames = max_frames
        self.capacity = capacity
        self.text_tokens = text_tokens
        self.repeated_tokens = repeated_tokens
        self.spare = spare
        self.listener = listener or Listener()
        self.number = number
        self.speed = speed
        self.patience = math.inf
        """Seconds that it waits for text at a time, where that comes while it is spoken."""
        self.frames = 0
        """Codec frames made so far; fewer than before when some have been thrown away."""
        self.submitted = 0.0
        """When the engine took it, by `time.perf_counter`."""
        self.queue_seconds: float | None = None
        """How long it waited for a slot; None while it does."""
        self._lock = threading.Condition()
        self._chunks: deque[tuple[PcmChunk, int]] = deque()
        self._unread = 0
        self._full = False
        self._heard = False
        self._done = False
        self._error: BaseException | None = None
        self._cancelled = False
        self._notify_consumer: Callable[[], None] | None = None
        self.on_consumer: Callable[[], None] = lambda: None
        """Set by the engine: called, from any thread, when the consumer has read or left."""

    # The engine's side.

    @property
    def following(self) -> Floats | Sequence[Floats]:
        """Text sides `[hidden]` of the positions behind the prompt, as far as they are known."""
        return self.prompt.following

    @property
    def ready(self) -> bool:
        """Whether its prompt is there."""
        return True

    @property
    def starved(self) -> bool:
        """Whether the next frame takes text that has not come yet."""
        return False

    @property
    def awaits_text(self) -> bool:
        """Whether more of its text may come."""
        return False

    @property
    def has_text_left(self) -> bool:
        """Whether some of its text has not been fed to the talker yet."""
        return self.frames < len(self.following)

    @property
    def over(self) -> bool:
        """Whether nothing is to be done for it any more: it has ended, or the consumer has left."""
        return self._done or self._cancelled

    @property
    def full(self) -> bool:
        """Whether unread audio has reached the capacity and half of it still is unread.

        Without the second a reader at the speed of speech would stop and start its row at every chunk.
        """
        return self._full

    @property
    def cancelled(self) -> bool:
        """Whether the consumer has left."""
        return self._cancelled

    def start(self, now: float) -> None:
        """Note that it has got a slot, at this time by `time.perf_counter`."""
        self.queue_seconds = now - self.submitted
        if self.listener.served is None:
            self.listener.served = now

    def put(self, pcm: PcmChunk, frames: int) -> None:
        """Hand over float32 PCM `[samples]` of `frames` codec frames."""
        with self._lock:
            if self._cancelled or self._done:
                return
            self._chunks.append((pcm, frames))
            self._unread += frames
            self._full = self._full or self._unread >= self.capacity
        self._wake()

    def finish(self, error: BaseException | None = None) -> None:
        """End the job; with an error the consumer raises it after the audio made so far."""
        with self._lock:
            if self._done:
                return
            self._done, self._error = True, error
        self._wake()

    def take_back(self) -> bool:
        """Take back all audio, unless the consumer has some of it; whether it worked."""
        with self._lock:
            if self._heard:
                return False
            self._chunks.clear()
            self._unread, self._full = 0, False
            return True

    # The consumer's side.

    @property
    def error(self) -> BaseException | None:
        """Why it ended before its audio was whole; None where it did not, or goes on."""
        return self._error

    def promote(self) -> None:
        """Be no spare job any more: from now on it waits its turn as any other."""
        self.spare = False
        self.on_consumer()

    def cancel(self) -> None:
        """Stop the job; the engine drops the row before its next frame. Harmless after the end."""
        with self._lock:
            self._cancelled = True
            self._chunks.clear()
            self._unread, self._full = 0, False
        self._wake()
        self.on_consumer()

    def _wake(self) -> None:
        with self._lock:
            self._lock.notify_all()
            notify = self._notify_consumer
        if notify is not None:
            notify()

    def _take(self) -> PcmChunk:
        """The next chunk; to be called with the lock held and a chunk there."""
        pcm, frames = self._chunks.popleft()
        self._heard = True
        self._unread -= frames
        self._full = self._full and self._unread > self.capacity // 2
        return pcm

    def _raise_end(self) -> None:
        if self._cancelled:
            raise JobError("the job was cancelled")
        if self._error is not None:
            raise self._error

    def __iter__(self) -> Iterator[PcmChunk]:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._chunks or self._done or self._cancelled)
                pcm = self._take() if self._chunks else None
            if pcm is None:
                self._raise_end()
                return
            self.on_consumer()
            yield pcm

    async def __aiter__(self) -> AsyncIterator[PcmChunk]:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def notify() -> None:  # it must not know the job, which would be garbage then that only the collector frees
            with suppress(RuntimeError):  # the loop has closed: nobody is left to tell
                loop.call_soon_threadsafe(changed.set)

        self._notify_consumer = notify
        while True:
            changed.clear()
            with self._lock:
                pcm = self._take() if self._chunks else None
                ended = pcm is None and (self._done or self._cancelled)
            if pcm is not None:
                self.on_consumer()
                yield pcm
            elif ended:
                self._raise_end()
                return
            else:
                await changed.wait()
