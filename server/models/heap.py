"""Giving memory back to the system."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import psutil

from server.graphs.pages import trim_heap, tune_heap
from server.models.daemon_threads import DaemonThreads

GROWTH_BYTES = 8 << 20
"""Less than this is not worth the 15 ms for which collecting garbage stops the whole process."""
MAPPED_FROM = 4 << 20
"""Bytes of a block from which on it has pages of its own, which go back when it is freed."""
TIDY_SECONDS = 2.0
"""From the end of a request to giving back what it took: its answer is let go of only after it has been sent."""


def bound() -> None:
    """Keep glibc's C heap from growing with the threads that have used it; before the first of them.

    It has a heap for each thread, up to 8 a core, whose free pages serve no other, and once a large block is freed it
    takes others like it from those heaps. Texts of 100,000 characters in the six threads of an event loop on two cores
    left 83 MB behind, and 29 MB with this.
    """
    tune_heap(arenas=2, mapped_from=MAPPED_FROM)


def give_back() -> None:
    """Free what only refers to itself, and return free pages of the C heap to the system.

    Jobs and their iterators refer to each other and to their engine. And glibc keeps what a model has freed: of the
    1.5 GB that an int8 model of 0.6B takes 1.0 were still there after unloading it, and 0.3 are after this. Other C
    libraries have no such function.
    """
    gc.collect()
    trim_heap()


class Tidying:
    """Gives back what requests took, some time after the last of them has ended, if that was much.

    While there are requests it waits: they would take the memory again, and collecting garbage would hold them up.

    Args:
        threads: to work in.
        at_rest: whether there are no requests.
    """

    def __init__(self, threads: DaemonThreads, at_rest: Callable[[], bool]) -> None:
        self._threads = threads
        self._at_rest = at_rest
        self._least = 0
        self._timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None

    def note(self) -> None:
        """What this process holds now is needed, or will not go."""
        self._least = resident()

    def soon(self) -> None:
        """A request has ended."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TIDY_SECONDS, self._look)

    def cancel(self) -> None:
        """Do nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        held = resident()
        self._least = min(self._least, held)
        if held - self._least > GROWTH_BYTES and self._at_rest():
            self._work = asyncio.get_running_loop().create_task(self._give_back())

    async def _give_back(self) -> None:
        await self._threads.run(give_back)
        self.note()


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(psutil.Process().memory_info().rss)
