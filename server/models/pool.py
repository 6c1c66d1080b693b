"""The pool of engines: it loads them, lends them to requests, and unloads the least recently used for another.

It knows nothing of what a request asks for. It runs on one event loop; engines are loaded and closed in threads, one
at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from server import log
from server.errors import BusyError, ModelLoadingError
from server.manifest import Manifest
from server.metrics import EngineEvents, EngineLoad, Metrics
from server.models.catalogue import Bundle, Bundles
from server.models.memory import MemoryTrimmer, collect_and_trim, human_size
from server.models.pool_entry import Loader, PoolEntry, SpeechEngine, is_lasting
from server.models.threads import DaemonThreads

CLOSE_SECONDS = 2.0
"""How long engines may take to end their last frame when the server stops."""


@dataclass(frozen=True)
class PoolLimits:
    """The bounds of a pool.

    Args:
        memory: bytes that all loaded models may take together; None is no limit.
        idle_seconds: how long an engine may be unused before it is unloaded; 0 is no limit.
        wait_seconds: how long a request waits for a model that is not loaded.
        max_requests: how many requests may use one model or wait for it.
    """

    memory: int | None = None
    idle_seconds: float = 0.0
    wait_seconds: float = 60.0
    max_requests: int = 20


class Lease:
    """The place of one request among those that use a model or wait for it; its engine stays loaded until `release`.

    Args:
        wait: waits for the engine; its argument is `patient`.
        on_release: gives the place back.
    """

    def __init__(self, wait: Callable[[bool], Awaitable[SpeechEngine]], on_release: Callable[[], None]) -> None:
        self._wait = wait
        self._on_release: Callable[[], None] | None = on_release

    async def engine(self, *, patient: bool = False) -> SpeechEngine:
        """Return the engine, loading it first if need be.

        Args:
            patient: whether to wait for as long as loading takes.

        Raises:
            ModelLoadingError: it was not loaded within `wait_seconds`.
            ModelRestartingError: it has died and is not loaded again yet.
            ModelUnavailableError: it cannot be loaded.
        """
        return await self._wait(patient)

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            on_release()


class EnginePool:
    """Engines that are loaded on demand and share the host's memory.

    Args:
        bundles: the bundles that can be loaded.
        load: loads the engine of a bundle.
        memory_of: gives the bytes of host memory that a bundle's engine takes.
        limits: the bounds of the pool.
        metrics: counts loadings and unloadings.
    """

    def __init__(
        self,
        bundles: Bundles,
        load: Loader,
        memory_of: Callable[[Manifest], int],
        limits: PoolLimits,
        metrics: Metrics,
    ) -> None:
        self.bundles = bundles
        self._load_engine = load
        self._limits = limits
        self._metrics = metrics
        self._memory_of = memory_of
        self._entries: dict[str, PoolEntry] = {}
        self._used = 0
        self._loading_lock = asyncio.Lock()
        self._room_changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = DaemonThreads()
        self._trimmer = MemoryTrimmer(self._threads, lambda: not any(entry.users for entry in self._entries.values()))
        for bundle in bundles.all():
            self.add(bundle)
        metrics.watch(
            lambda: {name: EngineLoad(engine.running, engine.waiting) for name, engine in self.loaded().items()}
        )

    def add(self, bundle: Bundle) -> None:
        """Let a bundle of the catalogue be loaded from now on, if its manifest can be read."""
        if bundle.manifest_or_none is not None:
            entry = self._entries[bundle.id] = PoolEntry(bundle, self._memory_of(bundle.manifest_or_none))
            self._refuse_if_too_large(entry)

    def _refuse_if_too_large(self, entry: PoolEntry) -> None:
        limit = self._limits.memory
        if limit is not None and entry.size > limit:
            entry.bundle.problem = (
                f"{entry.id} needs {human_size(entry.size)} of memory and KW_MODEL_MEMORY allows {human_size(limit)}; "
                "raise it, lower KW_MAX_ROWS or KW_MAX_FRAMES, or convert the checkpoint to a smaller precision"
            )

    def loaded(self) -> Mapping[str, SpeechEngine]:
        """The engines in memory, by model."""
        return {entry.id: entry.engine for entry in self._entries.values() if entry.engine is not None}

    @property
    def at_work(self) -> bool:
        """Whether a thread still loads or closes an engine."""
        return self._threads.alive

    def check_ready(self) -> str:
        """Return the default model's id if a request for it would be served, after loading it again if it was unloaded.

        Raises:
            ModelFetchingError: its bundle is being fetched.
            ModelLoadingError: it is loading for the first time.
            ModelRestartingError: its engine has died and is being loaded again.
            ModelUnavailableError: it cannot be loaded.
        """
        entry = self._entry(self.bundles.default())
        self._forget_if_dead(entry)
        if entry.state != "sound":
            entry.engine_at(_now())
        return entry.id

    def load_default(self) -> None:
        """Begin to load the default model, if its bundle can be loaded."""
        default = next(iter(self.bundles.all()), None)
        entry = self._entries.get(default.id) if default else None
        if entry is not None and entry.bundle.problem is None:
            entry.wanted_until = math.inf
            self._start_loading(entry)

    def lease(self, bundle: Bundle) -> Lease:
        """Give a request its place among those that use a model of the pool, before anything is done for the request.

        Raises:
            BusyError: `max_requests` requests use this model or wait for it.
            ModelFetchingError: its bundle is being fetched.
            ModelUnavailableError: it cannot be loaded.
        """
        entry = self._entry(bundle)
        if entry.users >= self._limits.max_requests:
            raise BusyError(f"{entry.users} requests use {entry.id} or wait for it, and no more may; try again soon")
        entry.users += 1
        if entry.idle is not None:
            entry.idle.cancel()
        return Lease(partial(self._wait_for, entry), partial(self._release, entry))

    async def _wait_for(self, entry: PoolEntry, patient: bool) -> SpeechEngine:
        self._forget_if_dead(entry)
        if entry.engine is None and entry.state != "failed":
            await asyncio.wait([self._start_loading(entry)], timeout=None if patient else self._limits.wait_seconds)
        try:
            return entry.engine_at(_now())
        except ModelLoadingError:
            entry.expect_return(_now())
            raise

    def _entry(self, bundle: Bundle) -> PoolEntry:
        if bundle.problem is not None or bundle.fetching is not None:
            raise bundle.unavailable()
        return self._entries[bundle.id]

    def _release(self, entry: PoolEntry) -> None:
        entry.users -= 1
        entry.last_used = _now()
        self._forget_if_dead(entry)
        self._rest_if_unused(entry)

    def _rest_if_unused(self, entry: PoolEntry) -> None:
        """If nobody uses the engine any more, let it be unloaded for another one, or after its idle time."""
        if entry.users:
            return
        self._room_changed.set()  # wakes loadings that wait for memory, and its own, which ends if nobody wants it
        if entry.engine is None:
            return
        if seconds := self._limits.idle_seconds:
            loop = asyncio.get_running_loop()
            entry.idle = loop.call_later(seconds, self._unload_if_still_idle, entry, entry.last_used)
        self._trimmer.request_ended()

    def _unload_if_still_idle(self, entry: PoolEntry, last_used: float) -> None:
        async def leave() -> None:
            async with self._loading_lock:
                if not entry.users and entry.last_used == last_used:
                    await self._unload(entry, "idle")

        self._start(leave())

    def _forget_if_dead(self, entry: PoolEntry) -> None:
        """Drop an engine whose thread has died, and begin to load it again."""
        if entry.engine is None or entry.engine.alive:
            return
        entry.engine = None
        self._used -= entry.size
        self._room_changed.set()
        self._metrics.model_unloaded(entry.id, "died")
        log.event("engine_died", level=logging.ERROR, model=entry.id)
        self._try_again(entry, entry.fail(_now()))

    def _try_again(self, entry: PoolEntry, delay: float) -> None:
        log.event("model_retry", level=logging.WARNING, model=entry.id, seconds=delay)
        entry.loading = self._start(self._load(entry, delay))

    def _start_loading(self, entry: PoolEntry) -> asyncio.Task[None]:
        if entry.loading is None or entry.loading.done():
            entry.loading = self._start(self._load(entry))
        return entry.loading

    async def _load(self, entry: PoolEntry, delay: float = 0.0) -> None:
        """Load an engine as soon as memory allows, unless nobody wants it any more by then."""
        await asyncio.sleep(delay)
        if entry.state == "failed":
            await self._threads.run(collect_and_trim)  # frees what the dead engine held
        while True:
            async with self._loading_lock:
                if (entry.in_demand(_now()) or entry.state == "failed") and await self._make_room(entry):
                    await self._open(entry)
                    return
                if not entry.in_demand(_now()):
                    entry.give_up()
                    return
                self._room_changed.clear()
            await self._room_changed.wait()  # without the lock, so that a smaller model can be loaded meanwhile

    async def _open(self, entry: PoolEntry) -> None:
        self._used += entry.size
        log.event("model_loading", model=entry.id)
        started = _now()
        try:
            events = EngineEvents(self._metrics, entry.id)
            engine = await self._threads.run(lambda: self._load_engine(entry.bundle.folder, events))
        except Exception as error:
            self._used -= entry.size
            self._loading_failed(entry, error)
            return
        entry.loaded(engine, _now())
        seconds = _now() - started
        self._metrics.model_loaded(entry.id, seconds)
        log.event("model_ready", model=entry.id, seconds=seconds)
        self._trimmer.set_baseline()
        self._rest_if_unused(entry)

    def _loading_failed(self, entry: PoolEntry, error: Exception) -> None:
        self._metrics.model_load_failed(entry.id)
        self._room_changed.set()
        if is_lasting(error):
            entry.bundle.problem = str(error)
            log.event("model_unavailable", level=logging.ERROR, model=entry.id, reason=entry.bundle.problem)
        else:
            log.event("model_error", level=logging.ERROR, model=entry.id, error=repr(error))
            self._try_again(entry, entry.fail(_now(), short_of_memory=isinstance(error, MemoryError)))

    async def _make_room(self, entry: PoolEntry) -> bool:
        """Unload unused engines, least recently used first, until this one fits; unload none if it would not fit.

        Nothing is unloaded for an engine that nobody wants. If loading it failed for want of memory last time, the
        host's or a GPU's, one unused engine is unloaded even within the limit.

        Returns:
            Whether it fits.
        """
        limit = math.inf if self._limits.memory is None else self._limits.memory
        while entry.short_of_memory or self._used + entry.size > limit:
            unused = [other for other in self._entries.values() if other.engine is not None and not other.users]
            enough = self._used + entry.size - sum(other.size for other in unused) <= limit
            if not unused or not enough or not entry.in_demand(_now()):
                break
            entry.short_of_memory = False
            await self._unload(min(unused, key=lambda other: other.last_used), "memory")
        entry.short_of_memory = False
        return self._used + entry.size <= limit

    async def _unload(self, entry: PoolEntry, reason: Literal["idle", "memory"]) -> None:
        engine, entry.engine = entry.engine, None
        if engine is None:
            return
        await self._threads.run(engine.close)
        del engine
        await self._threads.run(collect_and_trim)
        self._used -= entry.size
        self._room_changed.set()
        self._trimmer.set_baseline()
        self._metrics.model_unloaded(entry.id, reason)
        log.event("model_unloaded", model=entry.id, reason=reason)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task and keep a reference to it until it ends; asyncio itself keeps none."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Close every engine and wait up to `CLOSE_SECONDS`; `at_work` says whether some thread took longer."""
        for task in self._tasks:
            task.cancel()
        engines = list(self.loaded().values())
        for entry in self._entries.values():
            entry.engine = None
            if entry.idle is not None:
                entry.idle.cancel()
        self._trimmer.cancel()
        if engines:
            await asyncio.wait(
                [asyncio.create_task(self._threads.run(engine.close)) for engine in engines], timeout=CLOSE_SECONDS
            )


def _now() -> float:
    return asyncio.get_running_loop().time()
