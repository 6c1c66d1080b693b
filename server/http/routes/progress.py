"""A limit on the time that work may stand still, rather than on the time that it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

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
