"""An event loop whose clock can be put forward, so that no test waits for a timer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.server.running import PATIENCE_SECONDS

T = TypeVar("T")


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop whose time is real time plus the time that was skipped."""

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on such a loop."""
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(work)


async def skip(seconds: float) -> None:
    """Put the clock forward, and run everything that is due."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    await settle()
    loop.skipped += seconds
    await settle()


async def settle() -> None:
    """Let all tasks run that are ready."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait in real time until a thread has done something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (outcome := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"never happened: {what}")
        await asyncio.sleep(0.001)
    return outcome
