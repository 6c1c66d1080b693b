"""What a pool knows of one bundle: its engine, who uses it, and whether it can be had."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Literal

from server.bundles import Bundle
from server.errors import ModelLoadingError, ModelRestartingError
from server.speech_engine import SpeechEngine


@dataclass(eq=False)
class Place:
    """A bundle's place in the pool."""

    bundle: Bundle
    size: int
    """Bytes that its engine takes."""
    engine: SpeechEngine | None = None
    loading: asyncio.Task[None] | None = None
    users: int = 0
    """Leases, and those who wait for one: while there are any the engine is not unloaded."""
    waiting: int = 0
    last_used: float = 0.0
    idle: asyncio.TimerHandle | None = None
    state: Literal["new", "sound", "failed"] = "new"
    """`sound` once it has been loaded, even if it was unloaded since; `failed` until it is there again."""
    failures: int = 0
    """In a row."""
    loaded_at: float = 0.0
    retry_at: float = 0.0

    @property
    def id(self) -> str:
        return self.bundle.id

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
