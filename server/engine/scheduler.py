"""Who waits and who runs. Pure bookkeeping: it calls no graph, starts no thread and takes no lock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain

from server.engine.job import Job
from server.engine.prefill import SLICE_POSITIONS, Prefill
from server.engine.rows import Row

FIRST_WAIT_SECONDS = 30.0
"""A request that nobody hears yet gives way so long to those that are heard. That is more than a row usually takes, so
that a listener from whom it takes the row has enough to hear until another row ends."""

MOST_PASSED_OVER = 4
"""Frames in a row in which the prefill that has been under way longest may have no slice, because of shorter ones."""


class QueueFull(RuntimeError):
    """No more jobs may wait."""


Move = tuple[Row, int, Row | Prefill | None]
"""A row, its new slot, and who is there now."""


class Scheduler:
    """Waiting jobs, and prefills and rows under way, each in its slot.

    A free slot goes to the job that is due first. A request's first job is due a fixed time after its arrival; the next
    one of a request that is being heard, and that holds no slot, is due when its listener has heard all that has been
    made. So a listener keeps a row from one job to the next while others wait to begin, unless much has been made in
    advance. Since a time that is due never moves, all who wait have their turn (earliest deadline first, Liu and
    Layland 1973). The further jobs of a request are spare: they wait apart and after all others.

    Where there are several slots, no request ever holds the last free one beside others of its own: its jobs together
    have at most all slots but one, and spare jobs leave one slot free. So a request that comes while long ones are
    under way need not wait for the end of a row. Nor do jobs whose text still comes, which may keep their slots without
    using them, ever hold the last one, whosever they are.

    Args:
        slots: rows that can be under way at once.
        max_waiting: jobs that may wait for a slot, spare ones not counted.
        frame_seconds: that a codec frame is heard at a speed of 1.
    """

    def __init__(self, slots: int, max_waiting: int, frame_seconds: float) -> None:
        self.rows: list[Row] = []
        self.prefills: list[Prefill] = []
        self._waiting: deque[Job] = deque()
        self._spare: deque[Job] = deque()
        self._slots = slots
        self._max_waiting = max_waiting
        self._frame_seconds = frame_seconds
        self._all_but_one = max(slots - 1, 1)
        self._passed_over = 0
        """Frames since the prefill that was under way longest had a slice."""

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
        if sum(not waiting.over for waiting in self._waiting) >= self._max_waiting + self._free:
            raise QueueFull(f"{len(self.rows)} requests are running and {self._max_waiting} waiting")
        self._waiting.append(job)

    def collect_promoted(self) -> None:
        """Let jobs that have been promoted wait as any other, before those that are due at the same time.

        A job may be promoted from another thread at any moment, so each is asked once.
        """
        promoted: list[Job] = []
        still_spare: deque[Job] = deque()
        for job in self._spare:
            (still_spare if job.spare else promoted).append(job)
        self._waiting.extendleft(reversed(promoted))
        self._spare = still_spare

    @property
    def _free(self) -> int:
        return self._slots - len(self.rows) - len(self.prefills)

    def can_admit(self) -> bool:
        """Whether a job waits and there is a slot for it."""
        return self._next() is not None

    def admit(self) -> Prefill | None:
        """Give the next job a slot, if it may have one; the caller reports back by `run` or `release`."""
        job = self._next()
        if job is None:
            return None
        for queue in (self._waiting, self._spare):
            if job in queue:
                queue.remove(job)
        taken = self.held_slots()
        prefill = Prefill(job, next(slot for slot in range(self._slots) if slot not in taken))
        self.prefills.append(prefill)
        return prefill

    def _next(self) -> Job | None:
        if not self._free:
            return None
        jobs = [entry.job for entry in self._held()]
        held = Counter(id(job.listener) for job in jobs)
        may_await = sum(job.awaits_text for job in jobs) < self._all_but_one
        due = sorted([*self._waiting, *self._continuing(held)], key=self._due)
        spare = self._spare if self._free > 1 or self._slots == 1 else ()
        for job in chain(due, spare):
            if job.ready and held[id(job.listener)] < self._all_but_one and (may_await or not job.awaits_text):
                return job
        return None

    def _continuing(self, held: Collection[int]) -> Iterator[Job]:
        """The next job of each listener for whom nothing is being made; the others of theirs are spare."""
        served = {*held, *(id(job.listener) for job in self._waiting)}
        for job in self._spare:
            if id(job.listener) not in served:
                served.add(id(job.listener))
                yield job

    def _due(self, job: Job) -> float:
        """When a waiting job is due, by `time.perf_counter`; not before it came: its text may have been awaited."""
        served = job.listener.served
        return job.submitted + FIRST_WAIT_SECONDS if served is None else max(served, job.submitted)

    def slices(self, positions: Callable[[Prefill], int]) -> Iterator[Prefill]:
        """The prefills that have a slice beside the next frame, each as often as it has one; to be called once a frame.

        Together they have at most `SLICE_POSITIONS`, so that rows under way wait no longer than for these. Those that
        are done soonest come first, so that a long prompt holds up no short one. Lest short ones that keep coming hold
        up a long one for ever, the prefill that has been under way longest comes first once it has been passed over
        `MOST_PASSED_OVER` times: a short one waits a frame more then.

        Args:
            positions: how many positions the next slice of a prefill has, or counts as; at most `SLICE_POSITIONS`.

        Yields:
            A prefill, whose slice is to be made before the next one is asked for.
        """
        order = sorted(self.prefills, key=lambda prefill: prefill.remaining)
        oldest = self.prefills[0] if self.prefills else None
        if oldest and self._passed_over == MOST_PASSED_OVER:
            order.remove(oldest)
            order.insert(0, oldest)
        self._passed_over = self._passed_over + 1 if oldest else 0
        left = SLICE_POSITIONS
        for prefill in order:
            while prefill in self.prefills and (size := positions(prefill)) <= left:
                left -= size
                if prefill is oldest:
                    self._passed_over = 0
                yield prefill

    def run(self, prefill: Prefill, row: Row) -> None:
        """A prefilled row joins."""
        self.prefills.remove(prefill)
        self.rows.append(row)

    def release(self, prefill: Prefill) -> None:
        """A slot whose job did not become a row is free again."""
        self.prefills.remove(prefill)

    def drop(self, row: Row, now: float) -> None:
        """A row leaves at this time by `time.perf_counter`, and its slot is free."""
        self.rows.remove(row)
        job = row.job
        if row.error is None:
            job.listener.hear(job.number, job.frames * self._frame_seconds / job.speed, now)

    def drop_over(self) -> list[Job]:
        """Drop jobs that are over, for the most part since their consumer has left.

        Not to be called while a frame or a slice is being made.

        Returns:
            The jobs that waited or ran until now.
        """
        left = {job for job in self._jobs() if job.over}
        if left:
            self.rows = [row for row in self.rows if row.job not in left]
            self.prefills = [prefill for prefill in self.prefills if prefill.job not in left]
            self._waiting = deque(job for job in self._waiting if job not in left)
            self._spare = deque(job for job in self._spare if job not in left)
        return list(left)

    def runnable(self) -> list[Row]:
        """Rows whose reader keeps up, and that have the text for a frame."""
        return [row for row in self.rows if not (row.job.full or row.job.starved)]

    def starved(self) -> list[Job]:
        """Jobs whose text has not come yet, whether they have a row or not."""
        return [job for job in self._jobs() if job.starved and not job.over]

    def moves(self, rows: Sequence[Row], *, to_front: bool = False) -> list[Move]:
        """The fewest moves that put these rows into neighbouring slots.

        Args:
            rows: some of those under way.
            to_front: whether the slots are to be the first ones.
        """
        holders = {held.slot: held for held in self._held()}
        slots = {row.slot for row in rows}
        starts = range(1 if to_front else self._slots - len(rows) + 1)
        first = max(starts, key=lambda start: len(slots & set(range(start, start + len(rows)))))
        window = range(first, first + len(rows))
        outside = [row for row in rows if row.slot not in window]
        holes = [slot for slot in window if slot not in slots]
        return [(row, hole, holders.get(hole)) for row, hole in zip(outside, holes, strict=True)]

    def drop_all(self) -> list[Job]:
        """Empty everything; returns the jobs that were there."""
        jobs = self._jobs()
        for collection in (self.rows, self.prefills, self._waiting, self._spare):
            collection.clear()
        return jobs

    def held_slots(self) -> set[int]:
        """Slots of rows and prefills under way."""
        return {held.slot for held in self._held()}

    def _held(self) -> Iterator[Row | Prefill]:
        """Rows and prefills, each of which has a slot."""
        yield from self.rows
        yield from self.prefills

    def _jobs(self) -> list[Job]:
        return [*(held.job for held in self._held()), *self._waiting, *self._spare]
