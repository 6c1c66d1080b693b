"""Audio in the making: a text that is read, and the file that its samples become."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from server.audio.encoders import Encoder
from server.errors import BusyError, InvalidRequestError, SpeechFailedError
from server.metrics import Outcome
from server.models.memory import human_size
from server.models.pool import Lease
from server.speech.plan import Plan
from server.speech.reading import Reading


class WholeFiles:
    """Bounds the files that are made to their end before they are sent, since they are kept in memory until then.

    Args:
        most: bytes of one, and of all that are under way.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    @contextmanager
    def one(self) -> Iterator[Callable[[int], None]]:
        """Room for a file; what is given is to be called with the bytes by which it grows.

        Raises:
            InvalidRequestError: by that call; it would be longer than any may be.
            BusyError: by that call; with the others it would be.
        """
        length = 0

        def grow(more: int) -> None:
            nonlocal length
            most = human_size(self._most)
            hint = '"stream": true sends it while it is made'
            if length + more > self._most:
                raise InvalidRequestError(
                    f"the whole file would be longer than {most}; {hint}, or choose a smaller response_format",
                    param="input",
                )
            if self._held + more > self._most:
                raise BusyError(f"whole files that others wait for take {most} already; {hint}, or try again soon")
            length += more
            self._held += more

        try:
            yield grow
        finally:
            self._held -= length


class Speech:
    """Audio in the making: a text being read, and the file it is encoded to. Whoever holds it must `stop` it."""

    def __init__(
        self, reading: Reading, lease: Lease, encoder: Encoder, plan: Plan, *, model: str, repeatable: bool
    ) -> None:
        engine = lease.engine
        self.seed = plan.seed
        self.model = model
        self.speaker = plan.delivery.speaker
        """Of the voice that the request names; None for a model without speakers."""
        self.stand_in = plan.stand_in
        self.instruction_dropped = plan.instruction_dropped
        self.text_notes = plan.text_notes
        """What was dropped from the text, in ASCII."""
        self._reading = reading
        self._lease = lease
        self._engine = engine
        self._encoder = encoder
        self.content_type = encoder.content_type
        """Media type of the file."""
        self._repeatable = repeatable
        self._sample_rate = engine.manifest.sizes.codec.sample_rate
        self._samples = 0
        self._started = time.perf_counter()
        self._ended: float | None = None
        self.ttfa_seconds: float | None = None
        """From the start to the first part of the file."""
        self.outcome: Outcome = "stopped"
        """`done` once the file was made to its end, `failed` once it cannot be, else `stopped`."""
        self.error: str | None = None
        """Why it failed, for the log only."""

    @property
    def audio_seconds(self) -> float:
        """Length of the audio made so far."""
        return self._samples / self._sample_rate

    @property
    def wall_seconds(self) -> float:
        """Time since the speech was begun, until the file was whole."""
        return (self._ended or time.perf_counter()) - self._started

    @property
    def queue_seconds(self) -> float | None:
        """How long its first chunk waited for a row; None while it does."""
        return self._reading.queue_seconds

    @property
    def usage(self) -> tuple[int, int]:
        """Tokens of the text handed to the model so far, and codec frames made of it."""
        return self._reading.usage

    @property
    def capped(self) -> bool:
        """Whether the request's `max_new_tokens` ended the speech before its own end."""
        return self._reading.capped

    @property
    def progress(self) -> object:
        """Something else whenever the reading has got on; while it waits for a frame, whenever any other has."""
        return self._reading.progress

    async def parts(self) -> AsyncIterator[bytes]:
        """The file in parts as they become ready, none of them empty.

        Raises:
            SpeechFailedError: the engine gave up, or made no audio.
        """
        try:
            async for samples in self._reading:
                self._samples += samples.size
                if part := await asyncio.to_thread(self._encoder.encode, samples):
                    self.ttfa_seconds = self.ttfa_seconds or self.wall_seconds
                    yield part
            if not self._samples:
                raise ValueError("the engine made no audio")
            if part := await asyncio.to_thread(self._encoder.finish):
                yield part
        except Exception as error:
            raise self._failure(error) from error
        self.outcome, self._ended = "done", time.perf_counter()

    def _failure(self, error: Exception) -> SpeechFailedError:
        """The same seed would fail again; another random seed may not, and a dead engine is replaced."""
        cause = error.__cause__ or error
        self.outcome, self.error = "failed", f"{type(cause).__name__}: {cause}"
        return SpeechFailedError(
            "the speech could not be made to its end; the server's log says why",
            headers={"x-should-retry": "false"} if self._repeatable else None,
        )

    async def whole(self, grow: Callable[[int], object] = lambda _: None) -> bytearray:
        """The whole file at once.

        Args:
            grow: told of the bytes of each part before they are kept; its errors end the speech.

        Raises:
            SpeechFailedError: as for `parts`.
        """
        body = bytearray()
        async for part in self.parts():
            grow(len(part))
            body += part
        self._encoder.seal(body)
        return body

    def stop(self) -> None:
        """End its jobs wherever they are; harmless after their end."""
        self._reading.stop()
        self._encoder.close()
        self._lease.release()
