"""A limit on the time that work may stand still, rather than on the time that it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from server.errors import NoProgressError
from server.speech.rendering import Speech

T = TypeVar("T")

SLOWEST_READER = 4
"""So many seconds a client may let the server wait for each second of audio, on average and beside one pause of the
timeout's length. A player that takes audio as it plays it lets it wait for one."""
_LOOKS = 10
"""How often the limit is divided: a standstill is noticed that much of it late at most."""


@asynccontextmanager
async def while_progressing(progress: Callable[[], object], seconds: float) -> AsyncIterator[None]:
    """Bound what runs inside.

    Args:
        progress: gives something else whenever the work has got on.
        seconds: how long it may give the same; 0 is for ever.

    Raises:
        TimeoutError: it stood still; the work has been cancelled.
    """
    if not seconds:
        yield
        return
    loop = asyncio.get_running_loop()
    seen, since = progress(), loop.time()
    next_look: asyncio.TimerHandle
    async with asyncio.timeout(None) as bound:

        def look() -> None:
            nonlocal seen, since, next_look
            if (now := progress()) != seen:
                seen, since = now, loop.time()
            if loop.time() - since < seconds:
                next_look = loop.call_later(seconds / _LOOKS, look)
            else:
                bound.reschedule(loop.time())

        next_look = loop.call_later(seconds / _LOOKS, look)
        try:
            yield
        finally:
            next_look.cancel()


async def made(work: Awaitable[T], speech: Speech, timeout: float) -> T:
    """What the engine makes, as long as it gets on.

    Args:
        work: made by the engine for `speech`.
        speech: whose outcome it is if the engine does not.
        timeout: seconds for which it may make nothing; 0 is for ever.

    Raises:
        NoProgressError: it has made nothing for so long.
    """
    try:
        async with while_progressing(lambda: speech.progress, timeout):
            return await work
    except TimeoutError as error:
        speech.outcome = "timed_out"
        raise NoProgressError(f"the engine has made nothing for {timeout:g} seconds; try again") from error


class Patience:
    """How long a client may let the server wait: for each part of the audio, and on the whole.

    Args:
        speech: whose audio is sent.
        timeout: seconds for which the client may take nothing; 0 is for ever.
    """

    def __init__(self, speech: Speech, timeout: float) -> None:
        self._speech, self._timeout = speech, timeout
        self._waited = 0.0

    async def bounded(self, sending: Awaitable[None]) -> None:
        """Send a part that is short beside what a client may be late.

        Raises:
            TimeoutError: the client takes nothing, or too little for too long.
        """
        # Audio made counts, not audio sent: what is encoded at a time is short beside what a client may be late.
        allowed = self._timeout + SLOWEST_READER * self._speech.audio_seconds - self._waited
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(min(self._timeout, max(allowed, 0.0)) if self._timeout else None):
                await sending
        except TimeoutError:
            self._speech.outcome = "timed_out"
            raise
        self._waited += clock() - began
