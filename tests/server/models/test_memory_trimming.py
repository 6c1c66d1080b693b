"""Memory that requests took goes back to the system once they have ended."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from server.models import memory
from server.models.memory import TRIM_DELAY_SECONDS, WORTH_TRIMMING_BYTES, MemoryTrimmer
from server.models.threads import DaemonThreads
from tests.server.clock import run, settle, skip, until
from tests.server.models.test_pool import Models

MEGABYTE = 1 << 20


class Process:
    """A process whose memory the test sets, and which counts how often it is trimmed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.resident = 100 * MEGABYTE
        self.kept = 100 * MEGABYTE
        self.times = 0
        monkeypatch.setattr(memory, "resident", lambda: self.resident)
        monkeypatch.setattr(memory, "collect_and_trim", self._trim)

    def _trim(self) -> None:
        self.times += 1
        self.resident = self.kept


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


def test_memory_is_trimmed_after_much_growth_and_while_no_request_is_under_way(process: Process) -> None:
    async def play() -> None:
        requests = ["one"]
        threads = DaemonThreads()
        trimmer = MemoryTrimmer(threads, lambda: not requests)
        trimmer.set_baseline()

        async def ends() -> int:
            trimmer.request_ended()
            trimmer.request_ended()
            await skip(TRIM_DELAY_SECONDS + 0.1)
            await until(lambda: not threads.alive, "the thread ends")
            await settle()
            return process.times

        process.resident += WORTH_TRIMMING_BYTES + 1
        assert await ends() == 0, "another request is under way"
        requests.clear()
        assert await ends() == 1
        process.resident += WORTH_TRIMMING_BYTES
        assert await ends() == 1, "too little"
        process.kept += 1000 * MEGABYTE
        process.resident += 1000 * MEGABYTE
        assert await ends() == 2
        assert await ends() == 2, "what does not go is not asked for again"
        process.resident = 50 * MEGABYTE
        assert await ends() == 2
        process.resident += WORTH_TRIMMING_BYTES + 1
        assert await ends() == 3, "growth counts from the least"

    run(play())


def test_a_pool_trims_memory_after_its_last_request(process: Process) -> None:
    async def play() -> None:
        models = Models()
        await models.use("a")
        first, second = await models.lease("a"), await models.lease("a")
        process.resident += 500 * MEGABYTE
        first.release()
        await skip(TRIM_DELAY_SECONDS + 0.1)
        assert process.times == 0
        second.release()
        await settle()
        assert process.times == 0, "the answer may still be on its way"
        await skip(TRIM_DELAY_SECONDS + 0.1)
        await until(lambda: process.times == 1, "memory is trimmed")
        third = await models.lease("a")
        process.resident += 500 * MEGABYTE
        third.release()
        await models.pool.close()
        await skip(TRIM_DELAY_SECONDS + 0.1)
        assert process.times == 1, "a pool that is closed does nothing more"
        await asyncio.sleep(0)

    run(play())


MEASURE = """
import asyncio
from server.models import memory
from server.models.threads import DaemonThreads

async def main():
    trimmer = memory.MemoryTrimmer(DaemonThreads(), lambda: True)
    trimmer.set_baseline()
    idle = memory.resident()
    blocks = [b"x" * 100_000 for _ in range(2000)]
    taken = memory.resident() - idle
    del blocks[:-1]  # the last one is in the way of those below it
    kept = memory.resident() - idle
    trimmer.request_ended()
    for _ in range(600):
        await asyncio.sleep(0.1)
        if memory.resident() - idle < kept // 2:
            break
    print(taken, kept, memory.resident() - idle)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be trimmed")
def test_what_glibc_keeps_of_freed_memory_goes_back() -> None:
    """200 MB, in a process of its own."""
    measured = subprocess.run([sys.executable, "-c", MEASURE], check=True, capture_output=True, text=True).stdout
    taken, kept, left = map(int, measured.split())
    assert taken > 150 * MEGABYTE
    assert kept > 150 * MEGABYTE, "freed, and still there"
    assert left < 16 * MEGABYTE


SERVE = """
import gc, sys
from collections import deque
from pathlib import Path
from server.cli import serve
from server.config import Settings
from server.http import lifecycle
from tests.server.fakes import FakeEngine
def serve_nothing(*_):
    print(len(gc.get_objects()))
    most = 0
    def note(phase, info):
        nonlocal most
        if phase == "stop":
            most = max(most, info["collected"])
    gc.callbacks.append(note)
    under_way = deque(maxlen=5000)
    for _ in range(200_000):
        cycle = []
        cycle.append(cycle)
        under_way.append(cycle)
    print(most)
lifecycle.serve = serve_nothing
serve.run_server(Settings(models_dir=Path(sys.argv[1]), port=0), FakeEngine.load)
"""


def test_a_server_collects_no_garbage_among_what_it_has_loaded_at_the_start(tmp_path: Path) -> None:
    """Some 68,000 objects, all of which a full collection would look at while every thread waits, and it collects
    what has come since before that is much."""
    ended = subprocess.run([sys.executable, "-c", SERVE, str(tmp_path)], capture_output=True, text=True, check=True)
    looked_at, collected_at_a_time = map(int, ended.stdout.split())
    assert looked_at < 1000
    assert 0 < collected_at_a_time < 40_000  # Python 3.11 with its own thresholds: 56,000
