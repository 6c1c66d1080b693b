"""Encodes the samples of a reading into a file, in parts as they are made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from server.audio.formats import Encoder
from server.engine.job import TextLateError
from server.engine.manner import PromptError
from server.errors import ApiError, BusyError, InvalidRequestError, NoProgressError, SpeechFailedError
from server.metrics import Outcome
from server.models.memory import human_size
from server.speech.captions import Caption, Captions
from server.speech.plan import Plan
from server.speech.reading import Reading

STREAMED = '"stream": true sends it while it is made'


class WholeFiles:
    """Bounds the files that are sent whole, because they are kept in memory until they are made.

    Args:
        most: the most bytes of one file, and of all files under way together.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    @contextmanager
    def one(self, instead: str = STREAMED, param: str | None = "input") -> Iterator[Callable[[int], None]]:
        """Count one file, with a function that has to be called with the bytes by which the file grows.

        Args:
            instead: what the message of an error tells the client to do.
            param: the field of the request that is to blame.

        Raises:
            InvalidRequestError: from that function, if the file would be too long.
            BusyError: from that function, if all files under way together would be too long.
        """
        length = 0

        def grow(more: int) -> None:
            nonlocal length
            most = human_size(self._most)
            if length + more > self._most:
                raise InvalidRequestError(
                    f"the whole file would be longer than {most}; {instead}, or choose a smaller response_format",
                    param=param,
                )
            if self._held + more > self._most:
                raise BusyError(f"whole files that others wait for take {most} already; {instead}, or try again soon")
            length += more
            self._held += more

        try:
            yield grow
        finally:
            self._held -= length


class Speech:
    """Speech under way: a reading, and the file that it is encoded to. Its owner must `stop` it.

    Args:
        reading: has been begun, or is about to be.
        encoder: of the file.
        plan: what is read.
        on_stop: closes the encoder, and gives back whatever else the speech holds; it may be called again.
        model: id of the bundle that speaks.
        repeatable: whether the same request would make the same speech.
    """

    def __init__(
        self,
        reading: Reading,
        encoder: Encoder,
        plan: Plan,
        on_stop: Callable[[], None],
        *,
        model: str,
        repeatable: bool,
    ) -> None:
        self.seed = plan.seed
        self.model = model
        self.speaker = plan.delivery.speaker
        """The speaker of the voice that the request names; None for a model without speakers."""
        self.stand_in = plan.stand_in
        self.instruction_dropped = plan.instruction_dropped
        self.text_notes = plan.text_notes
        """Notes in ASCII on what was dropped from the text."""
        self.reference_notes: tuple[str, ...] = ()
        """Notes in ASCII on what is wrong with the recording of its voice."""
        self.cloned = plan.delivery.reference is not None
        self.times = None if plan.script is None else Captions(plan.script, reading.timeline)
        """When what is heard; None where nobody asked for it."""
        self._reading = reading
        self._encoder = encoder
        self.content_type = encoder.content_type
        """Media type of the file."""
        self._on_stop = on_stop
        self._repeatable = repeatable
        self._samples = 0
        self._started = time.perf_counter()
        self._ended: float | None = None
        self.ttfa_seconds: float | None = None
        """Seconds from the start to the first part of the file; None before it."""
        self.outcome: Outcome = "stopped"
        """`done` once the file is complete, `failed` once it cannot be completed, else `stopped`."""
        self.error: str | None = None
        """Why it failed, for the log only."""

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self._reading.sample_rate

    @property
    def audio_seconds(self) -> float:
        """Seconds of the audio made so far."""
        return self._samples / self._reading.sample_rate

    @property
    def wall_seconds(self) -> float:
        """Seconds from the start until now, or until the file was complete."""
        return (self._ended or time.perf_counter()) - self._started

    @property
    def queue_seconds(self) -> float | None:
        """Seconds that the first chunk waited for a row; None while it waits."""
        return self._reading.queue_seconds

    @property
    def usage(self) -> tuple[int, int]:
        """Numbers of tokens of the text heard so far, and of codec frames made of it."""
        return self._reading.usage

    @property
    def capped(self) -> bool:
        """Whether the request's `max_new_tokens` ended the speech before its own end."""
        return self._reading.capped

    @property
    def progress(self) -> object:
        """A value that changes whenever the speech makes progress, as `Reading.progress` has it."""
        return self._reading.progress

    async def captions(self) -> list[Caption]:
        """Captions of all that has been heard, made in a thread; none where nobody asked for them."""
        return await asyncio.to_thread(self.times.all) if self.times else []

    async def due_captions(self) -> list[Caption]:
        """Captions that have not been given out, as `Captions.due` has them, likewise."""
        return await asyncio.to_thread(list, self.times.due()) if self.times else []

    async def parts(self) -> AsyncGenerator[bytes]:
        """Yield the file in parts as they become ready; no part is empty.

        Raises:
            SpeechFailedError: the engine failed, or made no audio.
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
        except ApiError as error:
            self.outcome, self.error = "failed", error.message
            raise
        except Exception as error:
            raise self._failure(error) from error
        self.outcome, self._ended = "done", time.perf_counter()

    def _failure(self, error: Exception) -> ApiError:
        """Make the error of a failed speech; a client is told not to retry where the same seed would fail again."""
        cause = error.__cause__ or error
        self.outcome, self.error = "failed", f"{type(cause).__name__}: {cause}"
        if isinstance(error, TextLateError):
            return NoProgressError(f"{error}; send the next words sooner, or input.done behind a text")
        if isinstance(error, PromptError):
            return InvalidRequestError(f"{error}; send sentences, or less at a time", param="text")
        return SpeechFailedError(
            "the speech could not be made to its end; the server's log says why",
            headers={"x-should-retry": "false"} if self._repeatable else None,
        )

    async def whole(self, grow: Callable[[int], object] = lambda _: None) -> bytearray:
        """Make the whole file.

        Args:
            grow: is called with the number of bytes of each part before they are kept; its errors end the speech.

        Raises:
            SpeechFailedError: as for `parts`.
        """
        body = bytearray()
        async for part in self.parts():
            grow(len(part))
            body += part
        self._encoder.complete(body)
        return body

    def stop(self) -> None:
        """Cancel the jobs, and give back what the speech has held; it may be called after the end too."""
        self._reading.stop()
        self._on_stop()
