"""A limit on the time that work may make no progress, rather than on the time that it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_CHECKS = 10
"""Checks per time limit: a stall is noticed at most a tenth of the limit late."""


@asynccontextmanager
async def stall_timeout(progress: Callable[[], object], seconds: float) -> AsyncIterator[None]:
    """Cancel the work inside if it makes no progress for too long.

    Args:
        progress: returns another value whenever the work has made progress.
        seconds: how long the value may stay the same; 0 is no limit.

    Raises:
        TimeoutError: the work made no progress for so long and has been cancelled.
    """
    if not seconds:
        yield
        return
    async with asyncio.timeout(None) as timeout:
        checks = _Checks(progress, seconds, timeout)
        try:
            yield
        finally:
            checks.end()


class _Checks:
    """Ends a timeout when there is no progress for too long; once they have ended, nothing refers to them."""

    def __init__(self, progress: Callable[[], object], seconds: float, timeout: asyncio.Timeout) -> None:
        self._progress, self._seconds, self._timeout = progress, seconds, timeout
        self._loop = asyncio.get_running_loop()
        self._seen, self._since = progress(), self._loop.time()
        self._next = self._plan()

    def _plan(self) -> asyncio.TimerHandle:
        return self._loop.call_later(self._seconds / _CHECKS, self._check)

    def _check(self) -> None:
        if (now := self._progress()) != self._seen:
            self._seen, self._since = now, self._loop.time()
        if self._loop.time() - self._since < self._seconds:
            self._next = self._plan()
        else:
            self._timeout.reschedule(self._loop.time())

    def end(self) -> None:
        """Check no more."""
        self._next.cancel()
