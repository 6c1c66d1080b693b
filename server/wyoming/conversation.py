"""One client's connection: it describes the server, and speaks texts, also those that arrive while they are spoken.

A text comes whole (`synthesize`), or as `synthesize-start`, `synthesize-chunk` and `synthesize-stop`; a `synthesize`
between these repeats all of the text for servers that know no chunks, and is passed over. Each is answered by one
`audio-start`, its chunks and one `audio-stop`, and behind a text in chunks `synthesize-stopped`.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_write_event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped

from server.errors import ApiError, InvalidRequestError
from server.metrics import Metrics
from server.speech import telling
from server.speech.live import LiveSpeech, LiveText, Unit
from server.speech.progress import Patience, made
from server.speech.request import DEFAULT, SpeechRequest, of_object
from server.speech.service import SpeechService
from server.text.live import Granularity
from server.wyoming.events import EventError, read_event

WIDTH = 2
"""Bytes of a sample."""
ANY_TEXT = "a"
"""Stands for a text that has not come yet."""
MOST_WAITING = 8
"""Texts that a client may have sent and not heard to their end."""


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
    info: Info
    limits: Limits


@dataclass
class _Text:
    """A text to be spoken."""

    request: SpeechRequest
    text: LiveText
    in_chunks: bool


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
        self._open: LiveText | None = None
        """What chunks are added to."""
        self._waiting: asyncio.Queue[_Text] = asyncio.Queue()
        self._unheard = 0
        self._sending = False
        self._spoken = 0
        self._leaving, self._heard = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Hold the conversation to its end, which is the client's leaving, or the server's when all has been heard."""
        tasks = {asyncio.create_task(work) for work in (self._listen(), self._speak(), self._leave())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (ConnectionError, TimeoutError):
            pass  # the client has left, or takes nothing
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
                async with asyncio.timeout(self._doors.limits.idle_seconds or None):
                    event = await read_event(self._reader)
            except TimeoutError:
                if not self._sending and self._unheard <= bool(self._open):
                    return
                continue
            except EventError as error:
                await self._write(Error(f"the event cannot be read: {error}", "invalid_event"))
                return
            if event is None:
                return
            try:
                await self._take(event)
            except ApiError as error:
                await self._tell(error)

    async def _take(self, event: Event) -> None:
        if Describe.is_type(event.type):
            await self._write(self._doors.info)
        elif Ping.is_type(event.type):
            await self._write(Pong(text=Ping.from_event(event).text))
        elif SelectProgram.is_type(event.type):
            self._model = self._doors.service.pool.bundles.resolve(_text_of(event, "name")).id
        elif SynthesizeStart.is_type(event.type):
            self._end_open()
            text = self._text(event, "sentence", in_chunks=True)
            self._open = text.text
            self._queue(text)
        elif SynthesizeChunk.is_type(event.type):
            if self._open is not None:
                self._open.feed(_text_of(event, "text"))
        elif SynthesizeStop.is_type(event.type):
            self._end_open()
        elif Synthesize.is_type(event.type) and self._open is None:
            text = self._text(event, "none", in_chunks=False)
            text.text.feed(_text_of(event, "text"))
            text.text.end()
            self._queue(text)

    def _text(self, event: Event, granularity: Granularity, *, in_chunks: bool) -> _Text:
        if self._unheard >= MOST_WAITING:
            raise InvalidRequestError(f"{MOST_WAITING} texts have not been heard yet; wait for their audio-stop")
        voice = event.data.get("voice")
        named = voice if isinstance(voice, dict) else {}
        fields = {"voice": named.get("name"), "language": named.get("language") if not named.get("name") else None}
        request = of_object({"model": self._model, "input": ANY_TEXT, "response_format": "pcm", **fields})
        text = LiveText(granularity, self._doors.service.check(request), self._doors.limits.text_chars)
        return _Text(request, text, in_chunks)

    def _queue(self, text: _Text) -> None:
        self._unheard += 1
        self._waiting.put_nowait(text)

    def _end_open(self) -> None:
        if self._open is not None:
            self._open.end()
        self._open = None

    # What the client hears.

    async def _speak(self) -> None:
        while True:
            text = await self._waiting.get()
            try:
                await self._say(text)
            except ApiError as error:
                if self._open is text.text:
                    self._open = None
                await self._tell(error)
            if text.in_chunks:
                await self._write(SynthesizeStopped())
            self._unheard -= 1
            self._heard.set()

    async def _say(self, text: _Text) -> None:
        service, request = self._doors.service, text.request
        rate = service.pool.bundles.resolve(request.model).manifest.sizes.codec.sample_rate
        sent = 0
        async with aclosing(LiveSpeech(service, request, text.text).units()) as units:
            async for unit in units:
                sent = await self._send(unit, rate, sent)
        if not sent:
            await self._write(AudioStart(rate, WIDTH, 1, timestamp=0))
        await self._write(AudioStop(timestamp=_milliseconds(sent, rate)))

    async def _send(self, unit: Unit, rate: int, sent: int) -> int:
        """Send a unit's audio behind so many bytes of others; returns how many there are then."""
        timeout = self._doors.limits.timeout
        patience = Patience(unit.speech, timeout)
        self._sending = True
        try:
            async with aclosing(unit.speech.parts()) as parts:
                while part := await made(anext(parts, b""), unit.speech, timeout):
                    if not sent:
                        await self._write(AudioStart(rate, WIDTH, 1, timestamp=0))
                    chunk = AudioChunk(rate, WIDTH, 1, part, timestamp=_milliseconds(sent, rate))
                    await patience.bounded(async_write_event(chunk.event(), self._writer))
                    sent += len(part)
        finally:
            self._sending = False
            self._spoken += 1
            name = f"{self._name}.{self._spoken}"
            telling.ended(self._doors.metrics, unit.request, unit.speech, request_id=name, way="wyoming")
        return sent

    async def _tell(self, error: ApiError) -> None:
        await self._write(Error(error.message, error.code))

    async def _write(self, event: Eventable) -> None:
        async with asyncio.timeout(self._doors.limits.timeout or None):
            await async_write_event(event.event(), self._writer)


def _text_of(event: Event, name: str) -> str:
    value: Any = event.data.get(name)
    if not isinstance(value, str):
        raise InvalidRequestError(f"{event.type} has no {name}", param=name)
    return value


def _milliseconds(size: int, rate: int) -> int:
    return 1000 * size // (WIDTH * rate)
