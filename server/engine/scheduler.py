"""Who waits and who runs. Pure bookkeeping: it calls no graph, starts no thread and takes no lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import chain

from server.engine.job import Job
from server.engine.rows import Row


class QueueFull(RuntimeError):
    """As many jobs wait as may wait."""


class Scheduler:
    """Waiting jobs in order of arrival, and rows under way, each in its slot.

    Spare jobs wait apart: one of them gets a slot only while no other job waits, and together they never hold the last
    slot, unless there is but one, so that a job that comes later need not wait for the end of a long request's rows.

    Args:
        slots: rows that can be under way at once.
        max_waiting: jobs that may wait for a slot, spare ones not counted.
    """

    def __init__(self, slots: int, max_waiting: int) -> None:
        self.rows: list[Row] = []
        self._waiting: deque[Job] = deque()
        self._spare: deque[Job] = deque()
        self._starting: dict[int, Job] = {}
        self._slots = slots
        self._max_waiting = max_waiting
        self._max_spare = max(slots - 1, 1)

    @property
    def waiting(self) -> int:
        """Jobs that wait for a slot, spare ones too."""
        return len(self._waiting) + len(self._spare)

    def add(self, job: Job) -> None:
        """Let a job wait.

        Raises:
            QueueFull: no slot is free and no place in the queue; never for a spare job.
        """
        if job.spare:
            self._spare.append(job)
            return
        if sum(not waiting.cancelled for waiting in self._waiting) >= self._max_waiting + self._free:
            raise QueueFull(f"{len(self.rows)} requests are running and {self._max_waiting} waiting")
        self._waiting.append(job)

    @property
    def _free(self) -> int:
        return self._slots - len(self.rows) - len(self._starting)

    def can_admit(self) -> bool:
        """Whether a job waits and there is a slot for it."""
        return self._next_queue() is not None

    def admit(self) -> tuple[Job, int] | None:
        """The next job and the slot for it, or None; the caller reports back by `run` or `release`."""
        queue = self._next_queue()
        if queue is None:
            return None
        taken = {row.slot for row in self.rows} | set(self._starting)
        slot = next(slot for slot in range(self._slots) if slot not in taken)
        self._starting[slot] = queue.popleft()
        return self._starting[slot], slot

    def _next_queue(self) -> deque[Job] | None:
        if not self._free:
            return None
        # A job may be promoted while it waits: it came before those that wait now.
        self._waiting.extendleft(reversed([job for job in self._spare if not job.spare]))
        self._spare = deque(job for job in self._spare if job.spare)
        if self._waiting:
            return self._waiting
        spare = sum(job.spare for job in chain((row.job for row in self.rows), self._starting.values()))
        return self._spare if self._spare and spare < self._max_spare else None

    def run(self, row: Row) -> None:
        """A prefilled row joins."""
        del self._starting[row.slot]
        self.rows.append(row)

    def release(self, slot: int) -> None:
        """A slot whose job did not become a row is free again."""
        del self._starting[slot]

    def drop(self, row: Row) -> None:
        """A row leaves and its slot is free."""
        self.rows.remove(row)

    def drop_cancelled(self) -> list[Job]:
        """Whoever has left neither waits nor runs any more. Not to be called while a frame is being made.

        Returns:
            Those that did until now.
        """
        left = [job for job in self._jobs() if job.cancelled]
        if left:
            self.rows = [row for row in self.rows if row.job not in left]
            self._waiting = deque(job for job in self._waiting if job not in left)
            self._spare = deque(job for job in self._spare if job not in left)
        return left

    def runnable(self) -> list[Row]:
        """Rows whose reader keeps up."""
        return [row for row in self.rows if not row.job.full]

    def moves(self, rows: Sequence[Row]) -> list[tuple[Row, int, Row | None]]:
        """The fewest moves that put these rows into neighbouring slots: the row, its new slot, and who is there now.

        Not to be called while a job is being prefilled, whose slot looks free.
        """
        holders = {row.slot: row for row in self.rows}
        slots = {row.slot for row in rows}
        starts = range(self._slots - len(rows) + 1)
        first = max(starts, key=lambda start: len(slots & set(range(start, start + len(rows)))))
        window = range(first, first + len(rows))
        outside = [row for row in rows if row.slot not in window]
        holes = [slot for slot in window if slot not in slots]
        return [(row, hole, holders.get(hole)) for row, hole in zip(outside, holes, strict=True)]

    def drop_all(self) -> list[Job]:
        """Empty everything; returns the jobs that were there."""
        jobs = [*self._jobs(), *self._starting.values()]
        for collection in (self.rows, self._waiting, self._spare, self._starting):
            collection.clear()
        return jobs

    def _jobs(self) -> list[Job]:
        return [*(row.job for row in self.rows), *self._waiting, *self._spare]
