"""The engines loaded from bundles: which are in memory, who uses them, which one leaves for another.

Knows nothing of requests. Runs on one event loop; loads and closes engines in threads, one at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import ByteSize

from server import log
from server.bundles import Bundle, Bundles
from server.daemon_threads import DaemonThreads
from server.errors import BusyError
from server.graphs.manifest import BundleError, Manifest
from server.heap import give_back
from server.metrics import Metrics
from server.places import Place
from server.speech_engine import Lease, Loader, SpeechEngine

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
"""An engine that dies is loaded again after 1, 2, 4, ... seconds."""
STEADY_SECONDS = 300.0
"""Whoever has lived so long dies for the first time."""
CLOSE_SECONDS = 2.0
"""For engines to end their last frame when the server stops."""


@dataclass(frozen=True)
class PoolLimits:
    """What engines and those who wait for them may take.

    Args:
        memory: bytes of all loaded models together; None is without limit.
        idle_seconds: an engine that nobody uses for so long is unloaded; 0 is never.
        wait_seconds: how long to wait for a model that is not loaded.
        max_waiting: how many may wait for one model.
    """

    memory: int | None = None
    idle_seconds: float = 0.0
    wait_seconds: float = 60.0
    max_waiting: int = 16


class EnginePool:
    """Engines, loaded when they are asked for, that share the memory there is.

    Args:
        bundles: what can be loaded.
        load: makes an engine.
        memory_of: bytes that a bundle's engine takes.
        limits: see there.
        metrics: told of what happens.
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
        self._places = {
            bundle.id: Place(bundle, memory_of(bundle.readable)) for bundle in bundles.all() if bundle.readable
        }
        self._used = 0
        self._one_at_a_time = asyncio.Lock()
        self._room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = DaemonThreads()
        for place in self._places.values():
            self._refuse_if_too_large(place)
        metrics.watch(self.loaded)

    def _refuse_if_too_large(self, place: Place) -> None:
        limit = self._limits.memory
        if limit is not None and place.size > limit:
            place.bundle.problem = (
                f"{place.id} needs {_human(place.size)} of memory and KW_MODEL_MEMORY allows {_human(limit)}; "
                "raise it, lower KW_MAX_ROWS, or convert the checkpoint to a smaller precision"
            )

    def loaded(self) -> Mapping[str, SpeechEngine]:
        """The engines in memory, by model."""
        return {place.id: place.engine for place in self._places.values() if place.engine is not None}

    @property
    def at_work(self) -> bool:
        """Whether a thread still loads or closes an engine."""
        return self._threads.alive

    def check_ready(self) -> str:
        """The default model's id, if a request for it would be served; it may have to be loaded again after a rest.

        Raises:
            ModelLoadingError: soon it will.
            ModelRestartingError: its engine has died; soon there will be another.
            ModelUnavailableError: it will not.
        """
        place = self._place(self.bundles.default())
        self._notice_death(place)
        if place.state != "sound":
            place.engine_at(_now())
        return place.id

    def load_default(self) -> None:
        """Begin to load the default model, if there is one that can be."""
        default = next(iter(self.bundles.all()), None)
        place = self._places.get(default.id) if default else None
        if place is not None and place.bundle.problem is None:
            self._start_loading(place)

    async def lease(self, bundle: Bundle, *, patient: bool = False) -> Lease:
        """The engine of a bundle, loaded if it is not; it stays until the lease is released.

        Args:
            bundle: one of the pool's.
            patient: whether to wait for as long as loading takes.

        Raises:
            BusyError: too many wait for this model already.
            ModelLoadingError: it was not there in the time that `limits` allows.
            ModelRestartingError: its engine has died and another one is not there yet.
            ModelUnavailableError: it cannot be loaded.
        """
        place = self._place(bundle)
        place.users += 1
        if place.idle is not None:
            place.idle.cancel()
        try:
            self._notice_death(place)
            if place.engine is None and place.state != "failed":
                await self._wait_for(place, None if patient else self._limits.wait_seconds)
            engine = place.engine_at(_now())
        except BaseException:
            self._let_go(place)
            raise
        return Lease(engine, partial(self._let_go, place))

    async def _wait_for(self, place: Place, seconds: float | None) -> None:
        if place.waiting >= self._limits.max_waiting:
            raise BusyError(f"too many requests wait for {place.id} to be loaded; try again soon")
        place.waiting += 1
        try:
            await asyncio.wait([self._start_loading(place)], timeout=seconds)
        finally:
            place.waiting -= 1

    def _place(self, bundle: Bundle) -> Place:
        if bundle.problem is not None:
            raise bundle.unavailable()
        return self._places[bundle.id]

    def _let_go(self, place: Place) -> None:
        place.users -= 1
        place.last_used = _now()
        self._notice_death(place)
        self._rest(place)

    def _rest(self, place: Place) -> None:
        """Nobody uses this engine, if so: it may leave when its time has come, or for another at once."""
        if place.users or place.engine is None:
            return
        self._room.set()
        if self._limits.idle_seconds:
            place.idle = asyncio.get_running_loop().call_later(self._limits.idle_seconds, self._start_leaving, place)

    def _start_leaving(self, place: Place) -> None:
        async def leave() -> None:
            async with self._one_at_a_time:
                if not place.users:
                    await self._unload(place, "idle")

        self._start(leave())

    def _notice_death(self, place: Place) -> None:
        """An engine whose thread has died makes way for the next one."""
        if place.engine is None or place.engine.alive:
            return
        place.engine = None
        self._used -= place.size
        self._room.set()
        self._metrics.model_unloaded(place.id, "died")
        if _now() - place.loaded_at > STEADY_SECONDS:
            place.failures = 0
        log.event("engine_died", level=logging.ERROR, model=place.id)
        self._try_again(place)

    def _try_again(self, place: Place) -> None:
        delay = min(FIRST_RETRY_SECONDS * 2**place.failures, LONGEST_RETRY_SECONDS)
        place.failures += 1
        place.state = "failed"
        place.retry_at = _now() + delay
        log.event("model_retry", level=logging.WARNING, model=place.id, seconds=delay)
        place.loading = self._start(self._load(place, delay))

    def _start_loading(self, place: Place) -> asyncio.Task[None]:
        if place.loading is None or place.loading.done():
            place.loading = self._start(self._load(place))
        return place.loading

    async def _load(self, place: Place, delay: float = 0.0) -> None:
        await asyncio.sleep(delay)
        async with self._one_at_a_time:
            if place.state == "failed":
                await self._threads.run(give_back)  # what the engine had that died
            await self._make_room(place.size)
            self._used += place.size
            log.event("model_loading", model=place.id)
            started = _now()
            try:
                events = self._metrics.engine_events(place.id)
                engine = await self._threads.run(lambda: self._load_engine(place.bundle.folder, events))
            except Exception as error:
                self._used -= place.size
                self._loading_failed(place, error)
                return
            place.engine, place.state = engine, "sound"
            place.loaded_at = place.last_used = _now()
        seconds = _now() - started
        self._metrics.model_loaded(place.id, seconds)
        log.event("model_ready", model=place.id, seconds=seconds)
        self._rest(place)

    def _loading_failed(self, place: Place, error: Exception) -> None:
        """A bundle that is wrong stays wrong; anything else, such as too little memory, may pass."""
        self._metrics.model_load_failed(place.id)
        if isinstance(error, BundleError):
            place.bundle.problem = str(error)
            log.event("model_unavailable", level=logging.ERROR, model=place.id, reason=place.bundle.problem)
        else:
            log.event("model_error", level=logging.ERROR, model=place.id, error=repr(error))
            self._try_again(place)

    async def _make_room(self, size: int) -> None:
        """Unload engines, least recently used first, until one of `size` bytes fits; wait while all are in use."""
        limit = self._limits.memory
        while limit is not None and self._used + size > limit:
            unused = [place for place in self._places.values() if place.engine is not None and not place.users]
            if unused:
                await self._unload(min(unused, key=lambda place: place.last_used), "memory")
            else:
                self._room.clear()
                await self._room.wait()

    async def _unload(self, place: Place, reason: Literal["idle", "memory"]) -> None:
        engine, place.engine = place.engine, None
        if engine is None:
            return
        await self._threads.run(engine.close)
        del engine
        await self._threads.run(give_back)
        self._used -= place.size
        self._metrics.model_unloaded(place.id, reason)
        log.event("model_unloaded", model=place.id, reason=reason)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that nobody need hold on to."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End every engine and what runs on it; what takes longer than a frame or two is left behind (`at_work`)."""
        for task in self._tasks:
            task.cancel()
        engines = list(self.loaded().values())
        for place in self._places.values():
            place.engine = None
            if place.idle is not None:
                place.idle.cancel()
        if engines:
            await asyncio.wait(
                [asyncio.create_task(self._threads.run(engine.close)) for engine in engines], timeout=CLOSE_SECONDS
            )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _human(size: int) -> str:
    return ByteSize(size).human_readable(decimal=True)
