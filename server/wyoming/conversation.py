"""One client's connection: it describes the server, and speaks texts, also those that arrive while they are spoken.

A text comes whole (`synthesize`), or as `synthesize-start`, `synthesize-chunk` and `synthesize-stop`; a `synthesize`
between these repeats all of the text for servers that know no chunks, and is passed over. Each is answered by one
`audio-start`, its chunks and one `audio-stop`, and behind a text in chunks `synthesize-stopped`. What cannot be spoken
is answered by `error` and then by the same events, since Home Assistant passes over `error` and waits for the last of
them; only a text in chunks of which nothing was heard has no audio's start and stop. A client that sends many texts
and waits for no answer is told so, and put out.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.info import Describe, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped

from server.errors import ApiError, InvalidRequestError
from server.metrics import Metrics
from server.speech import telling
from server.speech.live import LiveSpeech, LiveText, Unit
from server.speech.progress import Patience, made
from server.speech.request import DEFAULT, MAX_NAME_CHARS, SpeechRequest
from server.speech.request_parsing import of_object
from server.speech.service import SpeechService
from server.text.halves import whole_characters
from server.text.live import Granularity
from server.wyoming.events import EventError, read_event
from server.wyoming.information import Information

WIDTH = 2
"""Bytes of a sample."""
ANY_TEXT = "a"
"""Stands for a text that has not come yet."""
ANY_RATE = 24_000
"""Samples per second that a text without a model is answered with."""
MOST_WAITING = 8
"""Texts that a client may have sent and not heard to their end; as many more are refused when it is their turn."""


@dataclass(frozen=True)
class Limits:
    """What connections may take.

    Attributes:
        connections: open ones.
        idle_seconds: without an event, while nothing is spoken, after which one is closed; 0 is never.
        timeout: seconds without progress, of the engine or of the client, after which speech is ended; 0 is never.
        text_chars: of a text.
    """

    connections: int
    idle_seconds: float
    timeout: float
    text_chars: int


@dataclass(frozen=True)
class Doors:
    """What all connections share."""

    service: SpeechService
    metrics: Metrics
    information: Information
    limits: Limits


class _UnheardError(Exception):
    """A client goes on sending texts and hears none: it is told why, and its connection ends.

    It is no error of the API, whose errors are all described in the API's document.
    """

    def __init__(self, reason: InvalidRequestError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _ComingText(LiveText):
    """A text that arrives over time, and knows whether all that has come of it has been taken."""

    awaited = False
    """Whether more of the text is waited for."""

    async def unit(self) -> str | None:
        """The next unit, as for `LiveText`."""
        self.awaited = True
        try:
            return await super().unit()
        finally:
            self.awaited = False


@dataclass
class _Text:
    """A text to be spoken, or to be refused when it is its turn.

    Attributes:
        in_chunks: whether it comes in chunks.
        rate: samples per second of its audio.
        text: what is said.
        request: how it is spoken, or why it is not.
        failed: whether it is over, so that what still comes of it is dropped.
        begun: whether its `audio-start` has been sent.
        sent: bytes of audio.
    """

    in_chunks: bool
    rate: int
    text: _ComingText
    request: SpeechRequest | ApiError
    failed: bool = False
    begun: bool = False
    sent: int = 0


class Conversation:
    """One connection.

    Args:
        doors: what it may use.
        name: of the connection, for the log.
        reader: what the client sends.
        writer: what the client is sent.
    """

    def __init__(self, doors: Doors, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._doors, self._name, self._reader, self._writer = doors, name, reader, writer
        self._model = DEFAULT
        self._open: _Text | None = None
        """What chunks are added to, until it is ended; one that has failed takes them and drops them."""
        self._now: _Text | None = None
        """What is spoken."""
        self._waiting: asyncio.Queue[_Text] = asyncio.Queue()
        self._unheard = 0
        self._sending = False
        self._spoken = 0
        self._leaving, self._heard = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Hold the conversation to its end, which is the client's leaving, or the server's when all has been heard.

        Raises:
            TimeoutError: the client takes nothing.
        """
        tasks = {asyncio.create_task(work) for work in (self._listen(), self._speak(), self._leave())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except ConnectionError:
            pass  # the client has left
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def leave(self) -> None:
        """The server stops: end the conversation when all that has been asked for is heard."""
        self._leaving.set()

    async def _leave(self) -> None:
        await self._leaving.wait()
        while self._unheard:
            self._heard.clear()
            await self._heard.wait()

    # What the client says.

    async def _listen(self) -> None:
        while True:
            try:
                event = await self._next_event()
            except EventError as error:
                await self._write(Error(f"the event cannot be read: {error}", "invalid_event"))
                return
            if event is None:
                return
            try:
                await self._take(event)
            except ApiError as error:
                await self._tell(error)
            except _UnheardError as error:
                await self._tell(error.reason)
                return

    async def _next_event(self) -> Event | None:
        """The next event; None at the end of the connection, which is idle for too long or closed."""
        reading = asyncio.create_task(read_event(self._reader))  # a part of an event outlasts the idle time
        try:
            while not (await asyncio.wait([reading], timeout=self._doors.limits.idle_seconds or None))[0]:
                if self._is_idle():
                    return None
            return reading.result()
        finally:
            reading.cancel()

    def _is_idle(self) -> bool:
        """Whether there is nothing to be spoken of what has come."""
        if self._sending or self._unheard > 1:
            return False
        return not self._unheard or (self._now is not None and self._now is self._open and self._now.text.awaited)

    async def _take(self, event: Event) -> None:
        if Describe.is_type(event.type):
            await self._write(await self._doors.information.told())
        elif Ping.is_type(event.type):
            text = Ping.from_event(event).text
            await self._write(Pong(text=await asyncio.to_thread(_sendable, text) if text else text))
        elif SelectProgram.is_type(event.type):
            name = _text_of(event, "name")
            if len(name) > MAX_NAME_CHARS:
                raise InvalidRequestError(f"name must have at most {MAX_NAME_CHARS} characters", param="name")
            self._model = self._doors.service.pool.bundles.resolve(name).id
        elif SynthesizeStart.is_type(event.type):
            self._end_open()
            self._open = await self._text(event, in_chunks=True)
            self._queue(self._open)
        elif SynthesizeChunk.is_type(event.type):
            if self._open is not None and not self._open.failed:
                self._open.text.feed(_text_of(event, "text"))
        elif SynthesizeStop.is_type(event.type):
            self._end_open()
        elif Synthesize.is_type(event.type) and self._open is None:
            self._queue(await self._text(event, in_chunks=False))

    async def _text(self, event: Event, *, in_chunks: bool) -> _Text:
        """The text that an event begins; a plain one is whole."""
        voice = event.data.get("voice")
        named = voice if isinstance(voice, dict) else {}
        fields = {"voice": named.get("name"), "language": named.get("language") if not named.get("name") else None}
        granularity: Granularity = "sentence" if in_chunks else "none"
        most, rate = self._doors.limits.text_chars, ANY_RATE
        await self._doors.service.voices.look()
        try:
            rate = self._doors.service.pool.bundles.resolve(self._model).manifest.sizes.codec.sample_rate
            request = of_object({"model": self._model, "input": ANY_TEXT, "response_format": "pcm", **fields})
            text = _ComingText(granularity, self._doors.service.check(request), most)
            rate = self._doors.service.sample_rate(request)  # a cloned voice may be spoken by another model
            if not in_chunks:
                text.feed(_text_of(event, "text"))
                text.end()
        except ApiError as error:
            return _Text(in_chunks, rate, _ComingText(granularity, None, most), error, failed=True)
        return _Text(in_chunks, rate, text, request)

    def _queue(self, text: _Text) -> None:
        if self._unheard >= MOST_WAITING:
            error = InvalidRequestError(f"{MOST_WAITING} texts have not been heard yet; wait for their audio-stop")
            if self._unheard >= 2 * MOST_WAITING:
                raise _UnheardError(error)
            text.failed, text.request = True, error
        self._unheard += 1
        self._waiting.put_nowait(text)

    def _end_open(self) -> None:
        if self._open is not None:
            self._open.text.end()
        self._open = None

    # What the client hears.

    async def _speak(self) -> None:
        while True:
            self._now = text = await self._waiting.get()
            try:
                await self._say(text)
            except ApiError as error:
                text.failed = True
                await self._tell(error)
            await self._finish(text)
            self._now = None
            self._unheard -= 1
            self._heard.set()

    async def _say(self, text: _Text) -> None:
        if isinstance(text.request, ApiError):
            raise text.request
        async with aclosing(LiveSpeech(self._doors.service, text.request, text.text).units()) as units:
            async for unit in units:
                await self._send(unit, text)

    async def _finish(self, text: _Text) -> None:
        """Send what ends the answer to a text."""
        if not (text.failed and text.in_chunks):
            await self._begin(text)
        if text.begun:
            await self._write(AudioStop(timestamp=_milliseconds(text.sent, text.rate)))
        if text.in_chunks:
            await self._write(SynthesizeStopped())

    async def _begin(self, text: _Text) -> None:
        if not text.begun:
            text.begun = True
            await self._write(AudioStart(text.rate, WIDTH, 1, timestamp=0))

    async def _send(self, unit: Unit, text: _Text) -> None:
        """Send a unit's audio."""
        timeout = self._doors.limits.timeout
        patience = Patience(unit.speech, timeout)
        self._sending = True
        try:
            async with aclosing(unit.speech.parts()) as parts:
                while part := await made(anext(parts, b""), unit.speech, timeout):
                    await self._begin(text)
                    chunk = AudioChunk(text.rate, WIDTH, 1, part, timestamp=_milliseconds(text.sent, text.rate))
                    await patience.bounded(async_write_event(chunk.event(), self._writer))
                    text.sent += len(part)
        finally:
            self._sending = False
            self._spoken += 1
            name = f"{self._name}.{self._spoken}"
            telling.ended(self._doors.metrics, unit.request, unit.speech, request_id=name, way="wyoming")

    async def _tell(self, error: ApiError) -> None:
        await self._write(Error(error.message, error.code))

    async def _write(self, event: Eventable | Event) -> None:
        async with asyncio.timeout(self._doors.limits.timeout or None):
            await async_write_event(event if isinstance(event, Event) else event.event(), self._writer)


def _text_of(event: Event, name: str) -> str:
    value: Any = event.data.get(name)
    if not isinstance(value, str):
        raise InvalidRequestError(f"{event.type} has no {name}", param=name)
    return value


def _sendable(text: object) -> str | None:
    """A text that can be sent: halves of characters, which JSON may hold, are made whole. What is no text is None."""
    return whole_characters(text) if isinstance(text, str) else None


def _milliseconds(size: int, rate: int) -> int:
    return 1000 * size // (WIDTH * rate)
