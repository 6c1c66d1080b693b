"""Which engines are in memory: leases, room, idleness, death. On engines that do nothing and a clock that skips."""

from __future__ import annotations

import asyncio
import errno
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest.mock import MagicMock, patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.job import Job, Sampling
from server.engine.worker import Engine
from server.errors import ApiError, BusyError, ModelLoadingError, ModelRestartingError, ModelUnavailableError
from server.manifest import BundleError, Manifest
from server.metrics import EngineEvents, Metrics
from server.models.catalogue import Bundle, Bundles, find
from server.models.pool import EnginePool, PoolLimits
from server.models.pool_entry import FIRST_RETRY_SECONDS, RETURN_SECONDS, STEADY_SECONDS, SpeechEngine
from tests.bundles import RANDOM_BUNDLE
from tests.server.clock import run, settle, skip, until
from tests.server.fakes import manifest_of

SIZES = {"a": 10, "b": 10, "c": 10, "tiny": 1, "huge": 1000}


def on_skipping_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def runs(*arguments: Any, **named: Any) -> None:
        run(test(*arguments, **named))

    return runs


class IdleEngine:
    """Loaded, and that is all."""

    provider, running, waiting, frames_made = "cpu", 0, 0, 0

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.max_frames = manifest.sizes.talker.max_positions
        self.alive = True
        self.closed = False

    def close(self) -> None:
        self.closed, self.alive = True, False


class Held(NamedTuple):
    """A lease whose engine is there."""

    engine: SpeechEngine
    release: Callable[[], None]


class Models:
    """A pool over bundles that only exist here, and a say in how they load."""

    def __init__(self, default: str = "a", **limits: Any) -> None:
        self.loads: list[str] = []
        self.failures: list[Exception] = []
        """Raised by the next loads."""
        self.gate = threading.Event()
        """Loading ends when it is set."""
        self.gate.set()
        found = [Bundle(Path(name), 0, Manifest.model_validate(manifest_of(name))) for name in SIZES]
        self.bundles = Bundles(found, default)
        self.metrics = Metrics()
        self.pool = EnginePool(
            self.bundles, self._load, lambda manifest: SIZES[manifest.id], PoolLimits(**limits), self.metrics
        )

    def _load(self, folder: Path, events: EngineEvents) -> SpeechEngine:
        self.loads.append(folder.name)
        self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return cast(SpeechEngine, IdleEngine(self.bundles.resolve(folder.name).manifest))

    async def lease(self, name: str, *, patient: bool = False) -> Held:
        lease = self.pool.lease(self.bundles.resolve(name))
        try:
            return Held(await lease.engine(patient=patient), lease.release)
        except BaseException:
            lease.release()
            raise

    def asks(self, name: str) -> asyncio.Task[Held]:
        return asyncio.create_task(self.lease(name))

    async def use(self, name: str) -> None:
        (await self.lease(name)).release()

    async def is_loaded(self, name: str) -> IdleEngine:
        return cast(IdleEngine, await until(lambda: self.pool.loaded().get(name), f"{name} is loaded"))

    def loaded(self) -> set[str]:
        return set(self.pool.loaded())


@on_skipping_loop
async def test_the_least_recently_used_engine_is_unloaded_for_another() -> None:
    models = Models(memory=20)
    for name in ("a", "b", "a"):
        await models.use(name)
    engine_b = models.pool.loaded()["b"]
    await models.use("c")
    assert models.loaded() == {"a", "c"}
    assert not engine_b.alive
    await models.use("b")
    assert models.loaded() == {"b", "c"}
    assert models.loads == ["a", "b", "c", "b"]


@on_skipping_loop
async def test_without_a_memory_limit_no_engine_is_unloaded() -> None:
    models = Models()
    for name in SIZES:
        await models.use(name)
    assert models.loaded() == set(SIZES)


@on_skipping_loop
async def test_an_engine_in_use_is_never_unloaded() -> None:
    models = Models(memory=20, wait_seconds=60.0, idle_seconds=5.0)
    a, b = await models.lease("a"), await models.lease("b")
    c = models.asks("c")
    await skip(30)
    assert models.loaded() == {"a", "b"}
    await skip(31)
    with pytest.raises(ModelLoadingError):
        await c
    c = models.asks("c")
    await settle()
    b.release()
    b.release()  # harmless
    (await c).release()
    assert models.loaded() == {"a", "c"}
    assert a.engine.alive
    assert not b.engine.alive


@on_skipping_loop
async def test_an_engine_that_a_request_waits_for_is_not_unloaded() -> None:
    """Both models have room for one only: each gets its turn and none is unloaded before it was used."""
    models = Models(memory=10)
    tasks = [models.asks(name) for name in ("a", "b", "c")]
    for task in tasks:
        lease = await task
        assert lease.engine.alive
        lease.release()
    assert models.loads == ["a", "b", "c"]


@on_skipping_loop
async def test_a_model_larger_than_the_limit_is_refused() -> None:
    models = Models(memory=20)
    with pytest.raises(ModelUnavailableError, match=r"huge needs 1\.0KB .* KW_MODEL_MEMORY allows 20B; raise it"):
        await models.lease("huge")
    assert models.loads == []
    assert any("huge" in problem for problem in models.bundles.problems)
    with pytest.raises(ModelUnavailableError, match="huge needs"):
        Models("huge", memory=20).pool.check_ready()


@on_skipping_loop
async def test_a_request_waits_for_a_model_only_so_long() -> None:
    models = Models(wait_seconds=10.0)
    models.gate.clear()
    waiting = models.asks("a")
    await skip(9)
    assert not waiting.done()
    await skip(2)
    with pytest.raises(ModelLoadingError):
        await waiting
    models.gate.set()
    assert await models.is_loaded("a")  # loading went on
    await models.use("a")
    assert models.loads == ["a"]


@on_skipping_loop
async def test_without_waiting_the_answer_comes_at_once() -> None:
    models = Models(wait_seconds=0.0)
    with pytest.raises(ModelLoadingError):
        await models.lease("a")
    await models.is_loaded("a")
    await models.use("a")


@on_skipping_loop
async def test_a_patient_request_waits_for_as_long_as_loading_takes() -> None:
    models = Models(wait_seconds=0.0)
    models.gate.clear()
    waiting = asyncio.create_task(models.lease("a", patient=True))
    await skip(10_000)
    models.gate.set()
    (await waiting).release()


@on_skipping_loop
async def test_requests_that_wait_for_a_model_are_limited() -> None:
    models = Models(max_requests=2)
    models.gate.clear()
    waiting = [models.asks("a"), models.asks("a")]
    await settle()
    with pytest.raises(BusyError):
        await models.lease("a")
    other = models.asks("b")
    models.gate.set()
    for task in (*waiting, other):
        (await task).release()


@on_skipping_loop
async def test_leases_count_towards_the_same_limit_as_waiting_requests() -> None:
    """A request that takes no place in the engine's queue, as a text of pauses alone, takes one here."""
    models = Models(max_requests=3)
    held = [await models.lease("a") for _ in range(3)]
    with pytest.raises(BusyError, match="3 requests use a or wait for it"):
        await models.lease("a")
    await models.use("b")
    held.pop().release()
    held.append(await models.lease("a"))
    for lease in held:
        lease.release()


@on_skipping_loop
async def test_a_model_that_waits_for_memory_does_not_delay_one_that_fits() -> None:
    models = Models(memory=15, wait_seconds=60.0)
    a = await models.lease("a")
    b = models.asks("b")
    await settle()
    await models.use("tiny")
    assert models.loads == ["a", "tiny"]
    a.release()
    (await b).release()
    assert models.loads == ["a", "tiny", "b"]


@on_skipping_loop
async def test_nothing_is_unloaded_for_a_model_that_would_still_not_fit() -> None:
    models = Models(memory=21)
    a, b = await models.lease("a"), await models.lease("b")
    await models.use("tiny")
    c = models.asks("c")
    await skip(5)
    assert models.loaded() == {"a", "b", "tiny"}  # without tiny there would be no room for c yet
    b.release()
    (await c).release()
    assert models.loaded() == {"a", "c"}
    a.release()


@on_skipping_loop
async def test_nothing_is_unloaded_for_a_model_whose_requests_have_left() -> None:
    models = Models(memory=10, wait_seconds=10.0)
    a = await models.lease("a")
    b = models.asks("b")
    await skip(11)
    with pytest.raises(ModelLoadingError):
        await b
    await skip(RETURN_SECONDS + 1)  # the client, who was told to, has not come again
    a.release()
    await skip(1)
    await until(lambda: not models.pool.at_work, "threads end")
    assert (models.loaded(), models.loads) == ({"a"}, ["a"])
    await models.use("b")  # and is loaded for the next who asks
    assert models.loads == ["a", "b"]


@on_skipping_loop
async def test_a_cancelled_request_counts_no_more() -> None:
    models = Models(memory=10)
    a = await models.lease("a")
    b = models.asks("b")
    await settle()
    b.cancel()
    await settle()
    a.release()
    await skip(1)
    await until(lambda: not models.pool.at_work, "threads end")
    assert (models.loaded(), models.loads) == ({"a"}, ["a"])


@on_skipping_loop
async def test_a_client_that_was_told_to_come_again_finds_its_model() -> None:
    """Where no request waits at all, the next one must find the model all the same."""
    models = Models(memory=10, wait_seconds=0.0)
    with pytest.raises(ModelLoadingError):
        await models.lease("a")
    await models.is_loaded("a")
    a = await models.lease("a")
    with pytest.raises(ModelLoadingError):
        await models.lease("b")
    await skip(RETURN_SECONDS - 1)
    a.release()
    await models.is_loaded("b")


@on_skipping_loop
async def test_the_default_model_is_loaded_without_a_request() -> None:
    models = Models(memory=10)
    b = await models.lease("b")
    models.pool.load_default()
    await skip(1000)
    b.release()
    await models.is_loaded("a")
    assert models.loaded() == {"a"}


@on_skipping_loop
async def test_nothing_is_unloaded_for_a_dead_engine_that_nobody_wants() -> None:
    models = Models(memory=10)
    lease = await models.lease("a")
    cast(IdleEngine, lease.engine).alive = False
    b = models.asks("b")
    lease.release()
    (await b).release()
    await skip(FIRST_RETRY_SECONDS + 1)
    await until(lambda: not models.pool.at_work, "threads end")
    assert models.loaded() == {"b"}
    assert models.pool.check_ready() == "a"  # a request would be served
    await models.use("a")
    assert models.loaded() == {"a"}


@on_skipping_loop
async def test_an_engine_is_not_unloaded_right_after_a_use() -> None:
    """Its time was up while another model was being loaded, and it was used before that was done."""
    models = Models(idle_seconds=60.0, wait_seconds=1000.0)
    await models.use("a")
    models.gate.clear()
    b = models.asks("b")
    await skip(61)
    await models.use("a")
    models.gate.set()
    (await b).release()
    await settle()
    await until(lambda: not models.pool.at_work, "threads end")
    assert models.loaded() == {"a", "b"}
    await skip(61)
    await until(lambda: not models.loaded(), "both are unloaded")


@on_skipping_loop
async def test_a_request_that_left_while_waiting_does_not_count() -> None:
    models = Models(memory=10, max_requests=1)
    models.gate.clear()
    leaver = models.asks("a")
    await settle()
    leaver.cancel()
    await settle()
    second = models.asks("a")
    models.gate.set()
    (await second).release()
    await models.use("b")
    assert models.loaded() == {"b"}


@on_skipping_loop
async def test_idle_engines_are_unloaded_and_loaded_again_on_demand() -> None:
    models = Models(idle_seconds=60.0)
    lease = await models.lease("a")
    await skip(1000)
    assert lease.engine.alive
    lease.release()
    await skip(50)
    await models.use("a")  # which starts the time anew
    await skip(50)
    assert models.loaded() == {"a"}
    engine = weakref.ref(lease.engine)
    del lease
    await skip(11)
    await until(lambda: models.loaded() == set() and not models.pool.at_work, "a is unloaded")
    assert engine() is None
    assert models.pool.check_ready() == "a"  # a request would be served
    await models.use("a")
    assert models.loads == ["a", "a"]


@on_skipping_loop
async def test_a_model_loaded_without_a_request_becomes_idle_too() -> None:
    models = Models(idle_seconds=60.0)
    models.pool.load_default()
    await models.is_loaded("a")
    await settle()
    await skip(61)
    await until(lambda: not models.loaded(), "a is unloaded")


@on_skipping_loop
async def test_a_dead_engine_is_loaded_again_after_longer_and_longer_delays() -> None:
    models = Models()
    wait = FIRST_RETRY_SECONDS
    for rebuilt in range(1, 4):
        lease = await models.lease("a")
        assert models.pool.check_ready() == "a"
        cast(IdleEngine, lease.engine).alive = False
        lease.release()  # its jobs have ended, so the death is noticed at once
        assert models.loaded() == set()
        with pytest.raises(ModelRestartingError) as caught:
            await models.lease("a")
        assert wait <= int(caught.value.extra_headers["retry-after"]) <= wait + 2
        with pytest.raises(ModelRestartingError):
            models.pool.check_ready()
        await skip(wait - 0.5)
        assert len(models.loads) == rebuilt
        await skip(0.6)
        await models.is_loaded("a")
        wait *= 2
    await skip(STEADY_SECONDS + 1)
    (await models.is_loaded("a")).alive = False
    with pytest.raises(ModelRestartingError):  # noticed by whoever comes
        models.pool.check_ready()
    await skip(FIRST_RETRY_SECONDS)
    await models.is_loaded("a")


@on_skipping_loop
async def test_a_dead_engine_frees_its_memory() -> None:
    models = Models(memory=10)
    lease = await models.lease("a")
    b = models.asks("b")
    await settle()
    cast(IdleEngine, lease.engine).alive = False
    lease.release()
    (await b).release()


@on_skipping_loop
async def test_a_damaged_bundle_is_not_loaded_again_and_other_failures_are() -> None:
    models = Models()
    models.failures = [BundleError("a: talker.onnx is damaged"), MemoryError("none left"), scarcity()]
    for _ in range(2):
        with pytest.raises(ModelUnavailableError, match=r"talker\.onnx is damaged"):
            await models.lease("a")
    with pytest.raises(ModelRestartingError):
        await models.lease("b")
    await skip(FIRST_RETRY_SECONDS)
    await until(lambda: len(models.loads) == 3 and not models.pool.at_work, "b is tried again")
    await skip(2 * FIRST_RETRY_SECONDS)
    await models.is_loaded("b")
    await models.use("b")
    assert models.loads == ["a", "b", "b", "b"]


def scarcity() -> BundleError:
    error = BundleError("b: manifest.json cannot be read (OSError)")
    error.__cause__ = OSError(errno.EMFILE, "Too many open files")
    return error


@on_skipping_loop
async def test_an_idle_engine_is_unloaded_for_one_that_lacked_memory() -> None:
    """A GPU's memory has no limit that the pool knows: the lack itself says that an engine has to leave."""
    models = Models()
    for name in ("a", "b", "tiny"):
        await models.use(name)
    used = await models.lease("a")
    models.failures = [MemoryError("none left")]
    with pytest.raises(ModelRestartingError):
        await models.lease("c")
    await skip(FIRST_RETRY_SECONDS)
    await models.is_loaded("c")
    assert models.loaded() == {"a", "tiny", "c"}
    assert used.engine.alive


@on_skipping_loop
async def test_closing_ends_every_engine_and_waits_for_no_loading() -> None:
    models = Models()
    lease = await models.lease("a")
    models.gate.clear()
    waiting = models.asks("b")
    await settle()
    await models.pool.close()
    assert not lease.engine.alive
    lease.release()
    assert models.pool.at_work
    waiting.cancel()
    models.gate.set()
    await until(lambda: not models.pool.at_work, "the loading thread ends")
    assert models.loaded() == set()


@settings(max_examples=40, deadline=None)
@given(
    limit=st.integers(10, 35),
    steps=st.lists(st.tuples(st.sampled_from(["a", "b", "c", "tiny"]), st.booleans()), max_size=30),
)
def test_the_memory_limit_is_kept_and_leased_engines_stay(limit: int, steps: list[tuple[str, bool]]) -> None:
    async def play() -> None:
        models = Models(memory=limit, wait_seconds=0.0)
        held: list[Held] = []
        for name, give_back in steps:
            if give_back and held:
                held.pop(0).release()
            try:
                held.append(await models.lease(name))
            except ApiError as error:
                assert isinstance(error, ModelLoadingError)
            await until(lambda: not models.pool.at_work, "threads end")
            await settle()
            assert sum(SIZES[loaded] for loaded in models.loaded()) <= limit
            assert all(lease.engine.alive for lease in held)
        for lease in held:
            lease.release()
        for name in ("a", "b", "c", "tiny"):
            (await models.lease(name, patient=True)).release()
        await models.pool.close()

    with patch("server.models.pool.collect_and_trim"):  # slow in a process full of tests
        run(play())


@on_skipping_loop
async def test_a_real_engine_is_freed_and_speaks_again() -> None:
    def load(folder: Path, events: EngineEvents) -> SpeechEngine:
        return Engine.load(folder, provider="cpu", threads=1, max_rows=1, max_queue=1, events=events)

    async def speak() -> weakref.ref[SpeechEngine]:
        lease = pool.lease(bundle)
        engine = await lease.engine()
        prompt = engine.prompt("Hello", speaker="serena", language="auto", instruction=None)
        job = Job(prompt, Sampling(0, 0, 1, 1, 0, 0, 1), seed=1, max_frames=2)
        engine.submit(job)
        assert sum([pcm.size async for pcm in job]) == 2 * 1920
        lease.release()
        return weakref.ref(engine)

    bundles = Bundles(find(RANDOM_BUNDLE.parent), RANDOM_BUNDLE.name)
    bundle = bundles.default()
    metrics = MagicMock(wraps=Metrics())
    pool = EnginePool(bundles, load, lambda manifest: 1, PoolLimits(idle_seconds=60.0), metrics)
    for times in range(1, 3):
        engine = await speak()
        await skip(61)
        await until(lambda times=times: metrics.model_unloaded.call_count == times, "the engine is unloaded")
        assert engine() is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("engine-")]
    await pool.close()
