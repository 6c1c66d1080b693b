"""Who waits and who runs. Pure bookkeeping: it calls no graph, starts no thread and takes no lock."""

from __future__ import annotations

from collections import deque

from server.engine.job import Job
from server.engine.synthesizer import Row


class QueueFull(RuntimeError):
    """As many jobs wait as may wait."""


class Scheduler:
    """Waiting jobs in order of arrival, and rows under way, each in its slot.

    Args:
        slots: rows that can be under way at once.
        max_waiting: jobs that may wait for a slot.
    """

    def __init__(self, slots: int, max_waiting: int) -> None:
        self.waiting: deque[Job] = deque()
        self.rows: list[Row] = []
        self._free = list(range(slots))
        self._max_waiting = max_waiting

    def add(self, job: Job) -> None:
        """Let a job wait.

        Raises:
            QueueFull: no slot is free and no place in the queue.
        """
        self._forget_cancelled()
        if len(self.waiting) >= self._max_waiting + len(self._free):
            raise QueueFull(f"{len(self.rows)} requests are running and {self._max_waiting} waiting")
        self.waiting.append(job)

    def can_admit(self) -> bool:
        """Whether a job waits and a slot is free for it."""
        return bool(self.waiting and self._free)

    def admit(self) -> tuple[Job, int] | None:
        """The next job and the slot for it, or None; the caller reports back by `run` or `release`."""
        if not self.can_admit():
            return None
        return self.waiting.popleft(), self._free.pop(0)

    def run(self, row: Row) -> None:
        """A prefilled row joins."""
        self.rows.append(row)

    def release(self, slot: int) -> None:
        """A slot whose job did not become a row is free again."""
        self._free = sorted([*self._free, slot])

    def drop(self, row: Row) -> None:
        """A row leaves and its slot is free."""
        self.rows.remove(row)
        self.release(row.slot)

    def drop_cancelled(self) -> None:
        """Whoever has left neither waits nor runs any more. Not to be called while a frame is being made."""
        self._forget_cancelled()
        for row in [row for row in self.rows if row.job.cancelled]:
            self.drop(row)

    def runnable(self) -> list[Row]:
        """Rows whose reader keeps up."""
        return [row for row in self.rows if not row.job.full]

    def drop_all(self) -> list[Job]:
        """Empty everything; returns the jobs that were there."""
        jobs = [*(row.job for row in self.rows), *self.waiting]
        for row in list(self.rows):
            self.drop(row)
        self.waiting.clear()
        return jobs

    def _forget_cancelled(self) -> None:
        self.waiting = deque(job for job in self.waiting if not job.cancelled)
