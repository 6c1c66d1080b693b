"""A bundle that is fetched while the server serves: what is tried again, what is told, and when it can be used."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, cast

import pytest

from server.errors import ModelFetchingError, ModelUnavailableError
from server.manifest import read_manifest
from server.metrics import EngineEvents, Metrics
from server.models.arrival import FIRST_RETRY_SECONDS, LONGEST_ASKED_SECONDS, Arrival
from server.models.catalogue import Bundle, Bundles, find
from server.models.fetching import FetchError, Progress
from server.models.pool import EnginePool, PoolLimits
from server.models.pool_entry import SpeechEngine
from tests.server.clock import run, skip, until
from tests.server.fakes import FakeEngine, write_bundle


class ScriptedFetch:
    """Ends as it is told to; None is success."""

    def __init__(self, folder: Path, *outcomes: Exception | None) -> None:
        self.folder = folder
        self.left = list(outcomes)
        self.tries = 0
        self.gate = threading.Event()
        """A try ends when it is set."""
        self.gate.set()

    def progress(self) -> Progress:
        return Progress(340, 1000)

    def run(self, *, tell: Callable[[str], object]) -> Path:
        self.tries += 1
        tell(f"try {self.tries}")
        self.gate.wait()
        if error := self.left.pop(0):
            raise error
        return write_bundle(self.folder.parent, self.folder.name)


class Waiting:
    """A pool whose default model is fetched, beside one that is there."""

    def __init__(self, tmp_path: Path, *outcomes: Exception | None) -> None:
        write_bundle(tmp_path, "there")
        self.bundle = Bundle(tmp_path / "awaited", 0)
        self.bundles = Bundles([*find(tmp_path), self.bundle], "awaited")
        self.pool = EnginePool(self.bundles, self._load, lambda manifest: 1, PoolLimits(), Metrics())
        self.fetch = ScriptedFetch(self.bundle.folder, *outcomes)
        self.seen: list[Bundle] = []
        self.arrival = Arrival(self.bundle, self.fetch, self.pool, self.seen.append)

    def _load(self, folder: Path, events: EngineEvents) -> SpeechEngine:
        return cast(SpeechEngine, FakeEngine(read_manifest(folder), 1, events))


def on_skipping_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def runs(*arguments: Any, **named: Any) -> None:
        run(test(*arguments, **named))

    return runs


def is_ready(waiting: Waiting) -> bool:
    try:
        return waiting.pool.check_ready() == "awaited"
    except ModelFetchingError:
        return False


@on_skipping_loop
async def test_it_is_the_default_model_before_and_after_it_comes(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, None)
    waiting.fetch.gate.clear()
    waiting.arrival.start()
    waiting.pool.load_default()
    for ask in (waiting.pool.check_ready, lambda: waiting.pool.lease(waiting.bundles.resolve("tts-1"))):
        with pytest.raises(ModelFetchingError, match="awaited is being fetched: 34 % of 0 MB are there") as caught:
            ask()
        assert caught.value.progress == (340, 1000)
        assert caught.value.status == 503 and "retry-after" in caught.value.headers
    waiting.pool.lease(waiting.bundles.resolve("there")).release()
    waiting.fetch.gate.set()
    await until(lambda: waiting.pool.loaded().get("awaited"), "it is loaded")
    assert is_ready(waiting)
    assert waiting.seen == [waiting.bundle]
    await waiting.pool.close()


def trouble(waiting: Waiting) -> str:
    """Why the last try failed; empty before the loop has heard of it, which is after the thread has ended."""
    return (waiting.bundle.fetching and waiting.bundle.fetching.trouble) or ""


@on_skipping_loop
async def test_what_passes_is_tried_again_at_longer_and_longer_times(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, *[FetchError(f"no network, {number}", passing=True) for number in (1, 2)], None)
    waiting.arrival.start()
    for number, delay in enumerate((FIRST_RETRY_SECONDS, 2 * FIRST_RETRY_SECONDS), 1):
        await until(lambda number=number: f"no network, {number}" in trouble(waiting), "a try has failed")
        with pytest.raises(ModelFetchingError, match=f"the last try failed: no network, {number}"):
            waiting.pool.check_ready()
        await skip(delay - 1)
        assert waiting.fetch.tries == number
        await skip(1.5)
    await until(lambda: waiting.pool.loaded(), "it is loaded")
    await waiting.pool.close()


@on_skipping_loop
async def test_a_hub_that_asks_for_a_pause_gets_one(tmp_path: Path) -> None:
    asked = FIRST_RETRY_SECONDS + 60
    errors = [
        FetchError("429, 1", passing=True, retry_after=asked),
        FetchError("429, 2", passing=True, retry_after=1e9),
        None,
    ]
    waiting = Waiting(tmp_path, *errors)
    waiting.arrival.start()
    for number, delay in enumerate((asked, LONGEST_ASKED_SECONDS), 1):
        await until(lambda number=number: f"429, {number}" in trouble(waiting), "a try has failed")
        await skip(delay - 1)
        assert waiting.fetch.tries == number
        await skip(1.5)
    await until(lambda: waiting.pool.loaded(), "it is loaded")
    await waiting.pool.close()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FetchError("no such repository"), "no such repository"),
        (KeyError("x"), r"fetching it failed \(KeyError\)"),
    ],
)
def test_what_does_not_pass_is_told_and_not_tried_again(tmp_path: Path, error: Exception, told: str) -> None:
    async def check() -> None:
        waiting = Waiting(tmp_path, error)
        waiting.arrival.start()
        await until(lambda: waiting.bundle.problem, "it is given up")
        await skip(10_000)
        assert waiting.fetch.tries == 1
        with pytest.raises(ModelUnavailableError, match=told):
            waiting.pool.check_ready()

    run(check())


@on_skipping_loop
async def test_the_end_of_the_server_does_not_wait_for_it(tmp_path: Path) -> None:
    waiting = Waiting(tmp_path, None)
    waiting.fetch.gate.clear()
    waiting.arrival.start()
    await until(lambda: waiting.fetch.tries, "it has begun")
    waiting.arrival.stop()
    assert waiting.arrival.at_work
    waiting.fetch.gate.set()
    await until(lambda: not waiting.arrival.at_work, "the thread has ended")
    await asyncio.sleep(0)
    assert not waiting.pool.loaded()
