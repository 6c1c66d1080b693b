"""Speech of a text that arrives over time, such as the words of a language model.

A door makes one `LiveText` for what one speaker says in one go, feeds it as the text comes, and hears `LiveSpeech` of
it: unit by unit, each of them a request of its own. What a unit is, the text's granularity says. With `token` a unit
lasts until the text ends, or stops coming for long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass

from server.errors import InvalidRequestError
from server.speech.live_reading import SETTLE_SECONDS
from server.speech.rendering import Speech
from server.speech.request import SpeechRequest
from server.speech.service import SpeechService
from server.text import tags
from server.text.halves import WholeCharacters
from server.text.live import Granularity, Splitter
from server.text.speakable import is_speakable

LONG_CHARS = 1000
"""What comes at once and is longer is cut into units in a thread, and comes apart at its tags in pieces of this length:
more would take the event loop's 20 ms."""
LOOK_AGAIN_SECONDS = 0.1
"""After so long a unit that waits for a row to spare looks again: engines tell nobody when a row ends."""


class LiveText:
    """A text that arrives over time: one side feeds it and ends it, the other takes its units as they become whole.

    Args:
        granularity: what a unit is.
        language: ISO 639-1 code; None goes by the script.
        most_chars: of the whole text.
    """

    def __init__(self, granularity: Granularity, language: str | None, most_chars: int) -> None:
        self.granularity = granularity
        self._splitter = Splitter(granularity, language)
        self._characters, self._tags = WholeCharacters(), tags.TagStream()
        self._most = most_chars
        self._chars = 0
        self._arrived: deque[str] = deque()
        """What has come and has not been cut, in pieces of at most `LONG_CHARS`."""
        self._parts: list[tags.Part | tags.TagError] = []
        """What has come apart at its tags and has not been given out."""
        self._units: deque[str] = deque()
        self._ended = self._over = False
        self._changed = asyncio.Event()
        self.taken = 0
        """So many units have been given out."""

    @property
    def chars(self) -> int:
        """Characters that have come."""
        return self._chars

    def feed(self, text: str) -> None:
        """Add some text, cut off anywhere.

        Raises:
            InvalidRequestError: the text would be longer than any may be; it stays as it was.
        """
        if self._chars + len(text) > self._most:
            raise InvalidRequestError(
                f"a text has at most {self._most} characters, which this would exceed; end it and begin another",
                param="text",
            )
        self._chars += len(text)
        self._arrived.extend(text[start : start + LONG_CHARS] for start in range(0, len(text), LONG_CHARS))
        self._changed.set()

    def end(self) -> None:
        """No more text will come."""
        self._ended = True
        self._changed.set()

    async def unit(self) -> str | None:
        """The next unit, as soon as it is whole; None at the text's end."""
        while not self._units:
            if self._arrived or self._ended:
                await self._cut()
                if self._ended and not self._units and not self._arrived:
                    return None
                continue
            self._changed.clear()
            try:
                async with asyncio.timeout(SETTLE_SECONDS if self._splitter.held else None):
                    await self._changed.wait()
            except TimeoutError:
                self._units.extend(self._splitter.settle())
                if not self._units:
                    await self._changed.wait()
        self.taken += 1
        return self._units.popleft()

    async def begins(self) -> bool:
        """Wait for something to say, or a silence; whether it comes before the text's end."""
        begun = any(map(_says_something, self._parts))
        while not begun:
            if (more := await self._next_parts()) is None:
                return False
            self._parts += more
            begun = any(map(_says_something, more))
        self.taken += 1
        return True

    async def parts(self) -> list[tags.Part | tags.TagError] | None:
        """What has come, apart at its tags, as soon as there is some; None at the text's end."""
        if self._parts:
            parts, self._parts = self._parts, []
            return parts
        return await self._next_parts()

    async def _next_parts(self) -> list[tags.Part | tags.TagError] | None:
        """Take the tags out of the next piece of the text, and let others have their turn first."""
        await asyncio.sleep(0)
        while not self._arrived and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        if self._arrived:
            return self._tags.feed(self._characters.feed(self._arrived.popleft()))
        if self._over:
            return None
        self._over = True
        return self._tags.feed(self._characters.end()) + self._tags.end()

    async def drop(self) -> None:
        """Drop what has come and what still comes, until the text has ended."""
        self._over = True
        while True:
            self._arrived.clear()
            self._parts.clear()
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()

    async def _cut(self) -> None:
        text = "".join(self._arrived)
        self._arrived.clear()
        ended = self._ended
        if len(text) > LONG_CHARS:
            self._units.extend(await asyncio.to_thread(self._splitter.feed, text))
        else:
            self._units.extend(self._splitter.feed(text))
        if ended:
            self._units.extend(self._splitter.flush())


@dataclass(frozen=True)
class Unit:
    """A part of a live text that is spoken at once, and its audio in the making."""

    text: str
    """What is said, as it came; empty where it has not come yet."""
    request: SpeechRequest
    speech: Speech


class LiveSpeech:
    """The speech of a live text.

    The next unit is made beside the one that is heard where the engine has a row to spare and another one beside that,
    so that one caller never takes the last.

    Args:
        service: what speaks.
        request: how each unit is spoken; its `input` counts for nothing.
        text: what is said.
    """

    def __init__(self, service: SpeechService, request: SpeechRequest, text: LiveText) -> None:
        self._service, self._request, self._text = service, request, text
        self._alone = asyncio.Event()
        self._voice: str | None = None
        """Of the last tag that has changed it; it holds for the units that follow, as it does within one text."""

    async def units(self) -> AsyncGenerator[Unit]:
        """The units, each of them begun; the one before is stopped when the next one is asked for, and all at the end.

        Raises:
            ApiError: as for `SpeechService.start`, of the unit that cannot be spoken.
        """
        if self._text.granularity == "token":
            async with aclosing(self._live_units()) as live:
                async for begun in live:
                    yield begun
            return
        following: asyncio.Task[Unit | None] | None = None
        try:
            while True:
                self._alone.set()
                unit = await (following or self._begin_next())
                following = None
                if unit is None:
                    return
                self._alone.clear()
                following = asyncio.create_task(self._begin_next())
                try:
                    yield unit
                finally:
                    unit.speech.stop()
        finally:
            if following is not None:
                # Nothing is awaited here: a second cancellation would end it, and the unit would be lost.
                following.add_done_callback(_stop)
                following.cancel()

    async def _live_units(self) -> AsyncGenerator[Unit]:
        while await self._text.begins():
            speech = await self._service.start_live(self._request, self._text.parts)
            try:
                yield Unit("", self._request, speech)
            finally:
                speech.stop()
            if speech.capped:
                await self._text.drop()

    async def _begin_next(self) -> Unit | None:
        text = await self._text.unit()
        if text is None:
            return None
        while not self._alone.is_set() and not self._row_to_spare():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._alone.wait()
        tagged = f"[voice:{self._voice}] {text}" if self._voice else text
        request = self._request.model_copy(update={"input": tagged})
        speech = await self._service.start(request)
        self._voice = tags.last_voice(text) or self._voice
        return Unit(text, request, speech)

    def _row_to_spare(self) -> bool:
        model = self._service.pool.bundles.resolve(self._request.model).id
        engine = self._service.pool.loaded().get(model)
        return engine is not None and engine.running + engine.waiting < engine.rows - 1


def _says_something(part: tags.Part | tags.TagError) -> bool:
    return not isinstance(part, tags.Spoken) or is_speakable(part.text)


def _stop(begun: asyncio.Task[Unit | None]) -> None:
    """Stop the unit of a task that nobody waits for, if it was begun before the task was cancelled."""
    if not begun.cancelled() and begun.exception() is None and (unit := begun.result()):
        unit.speech.stop()
