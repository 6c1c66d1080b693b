"""Threads for slow work: what they leave behind while they end."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

from server.models.threads import DaemonThreads


class Engine:
    """An object whose method is the work."""

    def close(self) -> None:
        """Do nothing."""


def test_a_thread_that_takes_long_to_end_does_not_hold_its_work() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        wakes = loop.call_soon_threadsafe
        may_end = threading.Event()

        def wakes_and_lingers(*arguments: Any) -> None:
            wakes(*arguments)
            assert may_end.wait(60)

        engine = Engine()
        watched = weakref.ref(engine)
        loop.call_soon_threadsafe = wakes_and_lingers  # type: ignore[method-assign]
        try:
            await threads.run(engine.close)
            del engine
            assert threads.alive
            gc.collect()
            assert watched() is None
        finally:
            may_end.set()

    threads = DaemonThreads()
    asyncio.run(work())
