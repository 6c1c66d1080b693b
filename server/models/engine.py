"""What the server needs of an engine, how it comes by one, and the hold that a request has on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from server.engine.events import EngineEvents
from server.engine.job import Job
from server.engine.prompt import Prompt
from server.manifest import Manifest


class SpeechEngine(Protocol):
    """What is needed of `server.engine.worker.Engine`."""

    manifest: Manifest
    frames_made: int

    def prompt(self, text: str, *, speaker: str | None, language: str, instruction: str | None) -> Prompt: ...

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
"""Makes an engine of a bundle's folder; slow, called in a thread."""


class Lease:
    """An engine that stays loaded until `release`."""

    def __init__(self, engine: SpeechEngine, let_go: Callable[[], None]) -> None:
        self.engine = engine
        self._let_go: Callable[[], None] | None = let_go

    def release(self) -> None:
        """Give the engine back; harmless when repeated."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()
