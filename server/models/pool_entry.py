"""What the pool keeps of one bundle: its engine, how many use it, and when it is loaded again after a failure."""

from __future__ import annotations

import asyncio
import errno
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from server.engine.job import Job
from server.engine.live import LiveText
from server.engine.prompt import Layout, Prompt
from server.engine.reference import Reference
from server.errors import LOADING_RETRY_SECONDS, ModelLoadingError, ModelRestartingError
from server.manifest import BundleError, Manifest
from server.metrics import EngineEvents
from server.models.catalogue import Bundle

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
"""An engine that has died, or could not be loaded for now, is loaded again after 1, 2, 4, ... up to 60 seconds."""
STEADY_SECONDS = 300.0
"""An engine that ran this long counts as healthy: its next death starts again at the shortest delay."""
RETURN_SECONDS = 2.0 * LOADING_RETRY_SECONDS
"""A client that was told to come again is expected until this many seconds after the time that it was told."""

SCARCE = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN})
"""Errors of the system that may pass: it lacks memory or file descriptors now and may have them later."""


class SpeechEngine(Protocol):
    """What the server uses of `server.engine.worker.Engine`; most tests bring an engine without graphs instead."""

    manifest: Manifest
    max_frames: int
    frames_made: int

    def prompt(
        self,
        text: str,
        *,
        speaker: str | None,
        language: str,
        instruction: str | None,
        layout: Layout | None,
        reference: Reference | None = None,
    ) -> Prompt: ...

    def live_text(
        self, *, speaker: str | None, language: str, instruction: str | None, reference: Reference | None = None
    ) -> LiveText: ...

    def encode_reference(self, samples: NDArray[np.float32], text: str | None) -> Reference: ...

    def count_tokens(self, text: str) -> int: ...

    def submit(self, job: Job) -> None: ...

    @property
    def rows(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    @property
    def provider(self) -> str: ...

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    def close(self) -> None: ...


Loader = Callable[[Path, EngineEvents], SpeechEngine]
"""Loads the engine of the bundle in a folder; it takes seconds, so that it is called in a thread."""


@dataclass(eq=False)
class PoolEntry:
    """One bundle in the pool. Times are seconds of the event loop's clock."""

    bundle: Bundle
    size: int
    """Bytes of host memory that the engine takes."""
    engine: SpeechEngine | None = None
    """The engine, while it is in memory."""
    loading: asyncio.Task[None] | None = None
    """The task that loads the engine, or loaded it last."""
    users: int = 0
    """Number of leases and of requests that wait for one; the engine is not unloaded while there are any."""
    wanted_until: float = 0.0
    """Until this time the engine counts as wanted, even if no request waits for it."""
    last_used: float = 0.0
    """When the last user left."""
    idle: asyncio.TimerHandle | None = None
    """The timer that unloads the engine when it has been idle for too long."""
    state: Literal["new", "sound", "failed"] = "new"
    """`sound` from the first loading on, even after unloading; `failed` from a failure until the next loading."""
    short_of_memory: bool = False
    """Whether the last loading failed because memory was short."""
    failures: int = 0
    """Number of failures since the engine last counted as healthy."""
    loaded_at: float | None = None
    """When the engine was last loaded; None if it never was."""
    retry_at: float = 0.0
    """When the engine is loaded again after its last failure."""

    @property
    def id(self) -> str:
        return self.bundle.id

    def in_demand(self, now: float) -> bool:
        """Whether a request waits for the engine, or is expected soon."""
        return self.users > 0 or now < self.wanted_until

    def expect_return(self, now: float) -> None:
        """Count the engine as wanted, because a client has been told to come again."""
        self.wanted_until = max(self.wanted_until, max(now, self.retry_at) + RETURN_SECONDS)

    def loaded(self, engine: SpeechEngine, now: float) -> None:
        """Note that the engine has been loaded."""
        self.engine, self.state = engine, "sound"
        self.loaded_at = self.last_used = now
        self.wanted_until = 0.0

    def fail(self, now: float, *, short_of_memory: bool = False) -> float:
        """Note that the engine has died or could not be loaded; return the seconds until it is loaded again."""
        if self.loaded_at is not None and self.state == "sound" and now - self.loaded_at > STEADY_SECONDS:
            self.failures = 0
        delay = min(FIRST_RETRY_SECONDS * 2.0**self.failures, LONGEST_RETRY_SECONDS)
        self.failures += 1
        self.state, self.retry_at, self.short_of_memory = "failed", now + delay, short_of_memory
        return delay

    def give_up(self) -> None:
        """Note that nobody wants the engine any more; it is loaded when a request asks for it."""
        self.state = "new" if self.loaded_at is None else "sound"

    def engine_at(self, now: float) -> SpeechEngine:
        """Return the engine, if it is in memory.

        Raises:
            ModelLoadingError: it is being loaded.
            ModelRestartingError: it has failed and will be loaded again.
            ModelUnavailableError: it cannot be loaded.
        """
        if self.bundle.problem is not None:
            raise self.bundle.unavailable()
        if self.engine is not None:
            return self.engine
        if self.state == "failed":
            wait = math.ceil(max(0.0, self.retry_at - now)) + 1
            raise ModelRestartingError(
                f"the model {self.id} has failed and is being started again; try again soon",
                param="model",
                headers={"retry-after": str(wait)},
            )
        raise ModelLoadingError(f"the model {self.id} is being loaded; try again soon", param="model")


def is_lasting(error: Exception) -> bool:
    """Whether loading would fail again: a wrong bundle stays wrong, while a lack of memory may pass."""
    cause = error.__cause__
    return isinstance(error, BundleError) and not (isinstance(cause, OSError) and cause.errno in SCARCE)
