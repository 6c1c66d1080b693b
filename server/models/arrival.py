"""Fetches the bundle of the default model while the server serves, and adds it to the pool when it is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from server import log
from server.models.catalogue import Bundle
from server.models.fetching import Fetch, FetchError, Fetching
from server.models.pool import EnginePool
from server.models.threads import DaemonThreads

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 300.0
"""What failed for now is tried again after 5, 10, 20, ... up to 300 seconds, or later where the Hub asks for that."""
LONGEST_ASKED_SECONDS = 3600.0
"""The Hub counts requests over five minutes; an answer that asks for more than an hour is taken for a mistake."""


class Arrival:
    """Fetches one bundle until it is there or cannot be had.

    Args:
        bundle: the bundle, known to the pool's catalogue already.
        fetch: brings it.
        pool: gets it.
        on_arrival: looks at the bundle before the pool gets it; it may set `problem`.
    """

    def __init__(self, bundle: Bundle, fetch: Fetch, pool: EnginePool, on_arrival: Callable[[Bundle], None]) -> None:
        self._bundle = bundle
        self._fetch = fetch
        self._pool = pool
        self._on_arrival = on_arrival
        self._threads = DaemonThreads()
        self._task: asyncio.Task[None] | None = None
        self._fetching = bundle.fetching = Fetching(fetch.progress)

    @property
    def at_work(self) -> bool:
        """Whether a thread still fetches."""
        return self._threads.alive

    def start(self) -> None:
        """Begin to fetch, on the running event loop."""
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Fetch no more; what has come stays for the next start. `at_work` says whether a thread has yet to end."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        bundle, loop = self._bundle, asyncio.get_running_loop()
        started, delay = loop.time(), FIRST_RETRY_SECONDS
        log.event("model_fetching", model=bundle.id)
        while True:
            try:
                await self._threads.run(partial(self._fetch.run, tell=self._tell))
                break
            except FetchError as error:
                if not error.passing:
                    self._give_up(str(error))
                    return
                self._fetching.trouble = str(error)
                wait = max(delay, min(error.retry_after or 0.0, LONGEST_ASKED_SECONDS))
            except Exception as error:  # a stranger to us: told, so that nobody waits for what will not come
                self._give_up(f"fetching it failed ({type(error).__name__})")
                log.event("fetch_error", level=logging.ERROR, model=bundle.id, error=repr(error))
                return
            log.event(
                "fetch_retry", level=logging.WARNING, model=bundle.id, seconds=wait, reason=self._fetching.trouble
            )
            await asyncio.sleep(wait)
            delay = min(2.0 * delay, LONGEST_RETRY_SECONDS)
        log.event("model_fetched", model=bundle.id, seconds=loop.time() - started)
        bundle.arrive()
        self._on_arrival(bundle)
        self._pool.add(bundle)
        self._pool.load_default()

    def _tell(self, line: str) -> None:
        log.event("model_fetching", model=self._bundle.id, what=line)

    def _give_up(self, reason: str) -> None:
        self._bundle.problem, self._bundle.fetching = reason, None
        log.event("model_unavailable", level=logging.ERROR, model=self._bundle.id, reason=reason)
