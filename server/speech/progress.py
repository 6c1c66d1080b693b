"""Limits on speech that makes no progress, in the engine or on its way to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from server.errors import NoProgressError
from server.metrics import Outcome
from server.speech.rendering import Speech
from server.speech.stall_timeout import stall_timeout

T = TypeVar("T")

MAX_WAIT_PER_AUDIO_SECOND = 4
"""Seconds that a client may make the server wait for each second of audio, on average, beside one pause of the
timeout's length. A player that reads at playing speed makes it wait for one second."""


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
        async with stall_timeout(lambda: speech.progress, timeout):
            return await work
    except TimeoutError as error:
        speech.outcome = "timed_out"
        raise NoProgressError(f"the engine has made nothing for {timeout:g} seconds; try again") from error


class Sent(Protocol):
    """What is sent: one speech, or several together."""

    outcome: Outcome

    @property
    def audio_seconds(self) -> float:
        """Seconds of the audio made so far, or of what has begun to be sent."""


class Patience:
    """How long a client may let the server wait: for each part of the audio, and on the whole.

    Args:
        sent: whose audio is sent, or received.
        timeout: seconds for which the client may take nothing; 0 is for ever.
    """

    def __init__(self, sent: Sent, timeout: float) -> None:
        self._sent, self._timeout = sent, timeout
        self._waited = 0.0

    async def bounded(self, sending: Awaitable[T]) -> T:
        """Send or receive a part that is short beside what a client may be late.

        Raises:
            TimeoutError: the client takes or sends nothing, or too little for too long.
        """
        # Audio made counts, not audio sent: what is encoded at a time is short beside what a client may be late.
        allowed = self._timeout + MAX_WAIT_PER_AUDIO_SECOND * self._sent.audio_seconds - self._waited
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(min(self._timeout, max(allowed, 0.0)) if self._timeout else None):
                done = await sending
        except TimeoutError:
            self._sent.outcome = "timed_out"
            raise
        self._waited += clock() - began
        return done
