"""Threads for slow work that must delay neither the event loop nor the end of the process."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


NICE = 2
"""By how much the priority of such threads is lower than that of the event loop, which is to go on as soon as anything
arrives while they keep all processors busy."""


def step_back() -> None:
    """Lower the priority of this thread, and of threads that it starts from now on.

    Only on Linux has a thread a priority of its own that it can lower; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        this = threading.get_native_id()
        with suppress(OSError):  # a sandbox may forbid it, and then all threads have the same priority
            os.setpriority(os.PRIO_PROCESS, this, os.getpriority(os.PRIO_PROCESS, this) + NICE)


class DaemonThreads:
    """Starts a daemon thread for each piece of work: unlike a thread pool, it does not delay the process' exit.

    Their priority is lower than that of the event loop, and so is that of the engines that are loaded in them.
    """

    def __init__(self) -> None:
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    @property
    def alive(self) -> bool:
        """Whether any of the threads is still running."""
        return any(thread.is_alive() for thread in self._threads)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a new thread and return its result; its exceptions are raised here.

        The thread ends a moment after this returns, and holds `work` no longer by then: an engine that was closed here
        is garbage at once.
        """
        loop = asyncio.get_running_loop()
        to_do = [work]
        del work
        outcome: asyncio.Future[T] = loop.create_future()

        def settle(set_outcome: Callable[[], None]) -> None:
            if not outcome.cancelled():
                set_outcome()

        def act() -> None:
            set_outcome: Callable[[], None]
            try:
                step_back()
                set_outcome = partial(outcome.set_result, to_do.pop()())
            except Exception as error:
                set_outcome = partial(outcome.set_exception, error)
            try:
                loop.call_soon_threadsafe(settle, set_outcome)
            except RuntimeError:  # the loop has closed: the server stopped before the work was done
                return

        thread = threading.Thread(target=act, name="daemon", daemon=True)
        self._threads.add(thread)
        thread.start()
        return await outcome
