"""What a pool knows of one bundle: its engine, who uses it, and whether it can be had."""

from __future__ import annotations

import asyncio
import errno
import math
from dataclasses import dataclass
from typing import Literal

from server.errors import LOADING_RETRY_SECONDS, ModelLoadingError, ModelRestartingError
from server.manifest import BundleError
from server.models.catalogue import Bundle
from server.models.engine import SpeechEngine

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
"""An engine that dies, or cannot be loaded for now, is loaded again after 1, 2, 4, ... seconds."""
STEADY_SECONDS = 300.0
"""An engine that ran for so long was healthy: its next death counts as the first."""
RETURN_SECONDS = 2.0 * LOADING_RETRY_SECONDS
"""For so long after the time that it was told, a client that was told to come again is expected."""

SCARCE = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN})
"""What the system may lack now and have later: memory, descriptors."""


@dataclass(eq=False)
class Place:
    """A bundle's place in the pool. All times are those of the event loop's clock, in seconds."""

    bundle: Bundle
    size: int
    """Bytes that its engine takes."""
    engine: SpeechEngine | None = None
    loading: asyncio.Task[None] | None = None
    users: int = 0
    """Leases, and those who wait for one: while there are any the engine is not unloaded."""
    wanted_until: float = 0.0
    """Until then somebody is expected to ask for the engine, although nobody waits for it."""
    last_used: float = 0.0
    idle: asyncio.TimerHandle | None = None
    state: Literal["new", "sound", "failed"] = "new"
    """`sound` once it has been loaded, even if it was unloaded since; `failed` until it is there again."""
    short_of_memory: bool = False
    """Whether its last loading failed for want of memory."""
    failures: int = 0
    """In a row."""
    loaded_at: float | None = None
    """Of its last engine; None where there was none yet."""
    retry_at: float = 0.0

    @property
    def id(self) -> str:
        return self.bundle.id

    def in_demand(self, now: float) -> bool:
        """Whether somebody waits for the engine, or is about to ask for it again."""
        return self.users > 0 or now < self.wanted_until

    def expect_return(self, now: float) -> None:
        """A client has been told to come again."""
        self.wanted_until = max(self.wanted_until, max(now, self.retry_at) + RETURN_SECONDS)

    def loaded(self, engine: SpeechEngine, now: float) -> None:
        """The engine is there."""
        self.engine, self.state = engine, "sound"
        self.loaded_at = self.last_used = now
        self.wanted_until = 0.0

    def fail(self, now: float, *, short_of_memory: bool = False) -> float:
        """The engine has died or could not be loaded; returns the seconds after which it should be tried again."""
        if self.loaded_at is not None and self.state == "sound" and now - self.loaded_at > STEADY_SECONDS:
            self.failures = 0
        delay = min(FIRST_RETRY_SECONDS * 2.0**self.failures, LONGEST_RETRY_SECONDS)
        self.failures += 1
        self.state, self.retry_at, self.short_of_memory = "failed", now + delay, short_of_memory
        return delay

    def give_up(self) -> None:
        """Nobody wants the engine any more: it is not loaded until somebody asks for it."""
        self.state = "new" if self.loaded_at is None else "sound"

    def engine_at(self, now: float) -> SpeechEngine:
        """The engine, if it is there.

        Args:
            now: on the clock of `retry_at`.

        Raises:
            ModelLoadingError, ModelRestartingError, ModelUnavailableError: why it is not.
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
    """Whether loading would fail again: a bundle that is wrong stays wrong; a lack of memory, or whatever, may pass."""
    cause = error.__cause__
    return isinstance(error, BundleError) and not (isinstance(cause, OSError) and cause.errno in SCARCE)
