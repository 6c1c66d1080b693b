"""What an engine tells about its work, for metrics; called from its thread, so every method returns at once."""

from __future__ import annotations

from typing import Protocol


class EngineEvents(Protocol):
    """Counts and times of one engine."""

    def queued(self, seconds: float) -> None:
        """A job has left the queue after so long."""

    def prefilled(self, seconds: float) -> None:
        """A job's prompt has been prefilled."""

    def frame_made(self, seconds: float, rows: int) -> None:
        """All of `rows` have advanced by one codec frame."""

    def runaway(self) -> None:
        """A row's codes were judged no speech and thrown away."""

    def retried(self) -> None:
        """Such a row goes on from its last good frame with another seed."""

    def cancelled(self) -> None:
        """A job's consumer left before its end."""


class NoEvents:
    """Tells nobody."""

    def queued(self, seconds: float) -> None: ...

    def prefilled(self, seconds: float) -> None: ...

    def frame_made(self, seconds: float, rows: int) -> None: ...

    def runaway(self) -> None: ...

    def retried(self) -> None: ...

    def cancelled(self) -> None: ...
