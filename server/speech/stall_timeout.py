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
    loop = asyncio.get_running_loop()
    seen, since = progress(), loop.time()
    next_check: asyncio.TimerHandle
    async with asyncio.timeout(None) as timeout:

        def check() -> None:
            nonlocal seen, since, next_check
            if (now := progress()) != seen:
                seen, since = now, loop.time()
            if loop.time() - since < seconds:
                next_check = loop.call_later(seconds / _CHECKS, check)
            else:
                timeout.reschedule(loop.time())

        next_check = loop.call_later(seconds / _CHECKS, check)
        try:
            yield
        finally:
            next_check.cancel()
            del check  # which refers to itself, so that only the garbage collector would free it
