"""The engines loaded from bundles: which are in memory, who uses them, which one leaves for another.

Knows nothing of requests. Runs on one event loop; loads and closes engines in threads, one at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import ByteSize

from server import log
from server.errors import BusyError, ModelLoadingError
from server.manifest import Manifest
from server.metrics import Metrics
from server.models.catalogue import Bundle, Bundles
from server.models.daemon_threads import DaemonThreads
from server.models.engine import Lease, Loader, SpeechEngine
from server.models.heap import Tidying, give_back
from server.models.places import Place, is_lasting

CLOSE_SECONDS = 2.0
"""For engines to end their last frame when the server stops."""


@dataclass(frozen=True)
class PoolLimits:
    """What engines and those who use them may take.

    Args:
        memory: bytes of all loaded models together; None is without limit.
        idle_seconds: an engine that nobody uses for so long is unloaded; 0 is never.
        wait_seconds: how long to wait for a model that is not loaded.
        max_requests: how many may use one model or wait for it.
    """

    memory: int | None = None
    idle_seconds: float = 0.0
    wait_seconds: float = 60.0
    max_requests: int = 20


class EnginePool:
    """Engines, loaded when they are asked for, that share the memory there is.

    Args:
        bundles: what can be loaded.
        load: makes an engine.
        memory_of: bytes of the host's memory that a bundle's engine takes.
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
        self._tidying = Tidying(self._threads, lambda: not any(place.users for place in self._places.values()))
        for place in self._places.values():
            self._refuse_if_too_large(place)
        metrics.watch(self.loaded)

    def _refuse_if_too_large(self, place: Place) -> None:
        limit = self._limits.memory
        if limit is not None and place.size > limit:
            place.bundle.problem = (
                f"{place.id} needs {_human(place.size)} of memory and KW_MODEL_MEMORY allows {_human(limit)}; "
                "raise it, lower KW_MAX_ROWS or KW_MAX_FRAMES, or convert the checkpoint to a smaller precision"
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
            place.wanted_until = math.inf
            self._start_loading(place)

    async def lease(self, bundle: Bundle, *, patient: bool = False) -> Lease:
        """The engine of a bundle, loaded if it is not; it stays until the lease is released.

        Args:
            bundle: one of the pool's.
            patient: whether to wait for as long as loading takes.

        Raises:
            BusyError: as many use this model or wait for it as may.
            ModelLoadingError: it was not there in the time that `limits` allows.
            ModelRestartingError: its engine has died and another one is not there yet.
            ModelUnavailableError: it cannot be loaded.
        """
        place = self._place(bundle)
        if place.users >= self._limits.max_requests:
            raise BusyError(f"{place.users} requests use {place.id} or wait for it, and no more may; try again soon")
        place.users += 1
        if place.idle is not None:
            place.idle.cancel()
        try:
            self._notice_death(place)
            if place.engine is None and place.state != "failed":
                await asyncio.wait([self._start_loading(place)], timeout=None if patient else self._limits.wait_seconds)
            engine = place.engine_at(_now())
        except BaseException as error:
            if isinstance(error, ModelLoadingError):
                place.expect_return(_now())
            self._let_go(place)
            raise
        return Lease(engine, partial(self._let_go, place))

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
        if place.users:
            return
        self._room.set()  # others may wait for this engine to leave, or it waits itself and is not wanted any more
        if place.engine is None:
            return
        if seconds := self._limits.idle_seconds:
            loop = asyncio.get_running_loop()
            place.idle = loop.call_later(seconds, self._start_leaving, place, place.last_used)
        self._tidying.soon()

    def _start_leaving(self, place: Place, last_used: float) -> None:
        async def leave() -> None:
            async with self._one_at_a_time:
                if not place.users and place.last_used == last_used:
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
        log.event("engine_died", level=logging.ERROR, model=place.id)
        self._try_again(place, place.fail(_now()))

    def _try_again(self, place: Place, delay: float) -> None:
        log.event("model_retry", level=logging.WARNING, model=place.id, seconds=delay)
        place.loading = self._start(self._load(place, delay))

    def _start_loading(self, place: Place) -> asyncio.Task[None]:
        if place.loading is None or place.loading.done():
            place.loading = self._start(self._load(place))
        return place.loading

    async def _load(self, place: Place, delay: float = 0.0) -> None:
        """Load an engine as soon as there is room for it, unless nobody wants it any more by then."""
        await asyncio.sleep(delay)
        if place.state == "failed":
            await self._threads.run(give_back)  # what the engine had that died
        while True:
            async with self._one_at_a_time:
                if (place.in_demand(_now()) or place.state == "failed") and await self._make_room(place):
                    await self._open(place)
                    return
                if not place.in_demand(_now()):
                    place.give_up()
                    return
                self._room.clear()
            await self._room.wait()  # outside the lock: others may fit

    async def _open(self, place: Place) -> None:
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
        place.loaded(engine, _now())
        seconds = _now() - started
        self._metrics.model_loaded(place.id, seconds)
        log.event("model_ready", model=place.id, seconds=seconds)
        self._tidying.note()
        self._rest(place)

    def _loading_failed(self, place: Place, error: Exception) -> None:
        self._metrics.model_load_failed(place.id)
        self._room.set()
        if is_lasting(error):
            place.bundle.problem = str(error)
            log.event("model_unavailable", level=logging.ERROR, model=place.id, reason=place.bundle.problem)
        else:
            log.event("model_error", level=logging.ERROR, model=place.id, error=repr(error))
            self._try_again(place, place.fail(_now(), short_of_memory=isinstance(error, MemoryError)))

    async def _make_room(self, place: Place) -> bool:
        """Unload engines that nobody uses, least recently used first, until one more fits, if that is enough for it.

        Nothing is unloaded for an engine that nobody wants. One that lacked memory last time, be it a GPU's, has one
        of the others unloaded whatever the limit allows.

        Returns:
            Whether it fits.
        """
        limit = math.inf if self._limits.memory is None else self._limits.memory
        while place.short_of_memory or self._used + place.size > limit:
            unused = [other for other in self._places.values() if other.engine is not None and not other.users]
            enough = self._used + place.size - sum(other.size for other in unused) <= limit
            if not unused or not enough or not place.in_demand(_now()):
                break
            place.short_of_memory = False
            await self._unload(min(unused, key=lambda other: other.last_used), "memory")
        place.short_of_memory = False
        return self._used + place.size <= limit

    async def _unload(self, place: Place, reason: Literal["idle", "memory"]) -> None:
        engine, place.engine = place.engine, None
        if engine is None:
            return
        await self._threads.run(engine.close)
        del engine
        await self._threads.run(give_back)
        self._used -= place.size
        self._room.set()
        self._tidying.note()
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
        self._tidying.cancel()
        if engines:
            await asyncio.wait(
                [asyncio.create_task(self._threads.run(engine.close)) for engine in engines], timeout=CLOSE_SECONDS
            )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _human(size: int) -> str:
    return ByteSize(size).human_readable(decimal=True)
