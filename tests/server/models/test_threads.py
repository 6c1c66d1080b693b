"""Threads for slow work: what they leave behind while they end."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import weakref
from typing import Any

import pytest

from server.models import threads as threads_module
from server.models.threads import NICE, DaemonThreads
from tests.server.running import PATIENCE_SECONDS


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
            assert may_end.wait(PATIENCE_SECONDS)

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


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def priority_of_a_thread_of_it() -> int:
    """The priority of a thread that the thread starts, as an engine's is started where it is loaded."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(priority()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such priorities")
def test_what_is_started_there_gives_way_to_the_event_loop() -> None:
    async def work() -> tuple[int, int, int]:
        threads = DaemonThreads()
        return priority(), await threads.run(priority), await threads.run(priority_of_a_thread_of_it)

    own, of_thread, of_its_thread = asyncio.run(work())
    assert of_thread == of_its_thread == min(own + NICE, 19)


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_have_no_priorities_of_threads(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise AssertionError("it asks for what is not there")

    monkeypatch.setattr(threads_module.sys, "platform", platform)
    monkeypatch.setattr(threads_module.os, "setpriority", fail, raising=False)
    threads_module.step_back()


def test_a_sandbox_may_forbid_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(threads_module.sys, "platform", "linux")
    monkeypatch.setattr(threads_module.os, "getpriority", forbid, raising=False)
    monkeypatch.setattr(threads_module.os, "PRIO_PROCESS", 0, raising=False)
    threads_module.step_back()
