"""The scheduler under any order of events: no job lost, none run twice, order kept, every slot held once."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.engine.job import Job, Sampling
from server.engine.rows import Row, RowState
from server.engine.sampling import RowSampler
from server.engine.scheduler import QueueFull, Scheduler

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
NO_PROMPT = np.zeros((1, 1), np.float32)
SILENCE = np.zeros(1, np.float32)


def job_of(*, spare: bool = False) -> Job:
    return Job(NO_PROMPT, SAMPLING, 0, 9, capacity=2, spare=spare)


def row_of(job: Job, slot: int) -> Row:
    return Row(job, slot, cast(RowState, None), cast(RowSampler, None))


class SchedulerMachine(RuleBasedStateMachine):
    """Drives a scheduler as the engine does, beside lists that say what must be."""

    @initialize(slots=st.integers(1, 5), max_waiting=st.integers(0, 3))
    def begin(self, slots: int, max_waiting: int) -> None:
        self.scheduler = Scheduler(slots, max_waiting)
        self.slots, self.max_waiting = slots, max_waiting
        self.queues: dict[bool, list[Job]] = {False: [], True: []}
        self.starting: list[tuple[Job, int]] = []
        self.rows: list[Row] = []
        self.started: list[Job] = []

    def held(self) -> list[int]:
        return [slot for _, slot in self.starting] + [row.slot for row in self.rows]

    def spares(self) -> int:
        return sum(job.spare for job in [*(job for job, _ in self.starting), *(row.job for row in self.rows)])

    @rule(spare=st.booleans())
    def add(self, spare: bool) -> None:
        job = job_of(spare=spare)
        places = self.max_waiting + self.slots - len(self.held())
        if not spare and sum(not waiting.cancelled for waiting in self.queues[False]) >= places:
            with pytest.raises(QueueFull):
                self.scheduler.add(job)
        else:
            self.scheduler.add(job)
            self.queues[spare].append(job)

    @precondition(lambda self: self.queues[True])
    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.queues[True])).promote()

    @rule()
    def admit(self) -> None:
        free = self.slots - len(self.held())
        if free:  # a promoted job came before those that wait now
            self.queues[False][:0] = [job for job in self.queues[True] if not job.spare]
            self.queues[True] = [job for job in self.queues[True] if job.spare]
        expected = None
        if free and self.queues[False]:
            expected = self.queues[False]
        elif free and self.queues[True] and (self.slots == 1 or self.spares() + 1 < self.slots):
            expected = self.queues[True]
        assert self.scheduler.can_admit() == (expected is not None)
        admitted = self.scheduler.admit()
        if expected is None:
            assert admitted is None
            return
        assert admitted is not None
        job, slot = admitted
        assert job is expected.pop(0), "not the first of those who wait"
        assert job not in self.started, "run twice"
        assert slot not in self.held()
        assert 0 <= slot < self.slots
        self.started.append(job)
        self.starting.append((job, slot))

    @precondition(lambda self: self.starting)
    @rule(fault=st.booleans())
    def prefilled(self, fault: bool) -> None:
        job, slot = self.starting.pop(0)
        if fault:
            self.scheduler.release(slot)
            return
        self.rows.append(row_of(job, slot))
        self.scheduler.run(self.rows[-1])

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def pause_or_resume(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.rows)).job
        if job.full:
            for _ in range(2):
                next(iter(job))
        else:
            job.put(SILENCE, 1)
            job.put(SILENCE, 1)
            assert job.full or job.cancelled

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        jobs = [*self.queues[False], *self.queues[True], *(row.job for row in self.rows)]
        jobs += [job for job, _ in self.starting]
        if jobs:
            data.draw(st.sampled_from(jobs)).cancel()

    @rule()
    def drop_cancelled(self) -> None:
        present = [*(row.job for row in self.rows), *self.queues[False], *self.queues[True]]
        assert set(self.scheduler.drop_cancelled()) == {job for job in present if job.cancelled}
        self.rows = [row for row in self.rows if not row.job.cancelled]
        for queue in self.queues.values():
            queue[:] = [job for job in queue if not job.cancelled]
        assert self.scheduler.drop_cancelled() == []

    @precondition(lambda self: not self.starting)  # one thread does both
    @rule(ends=st.sets(st.integers(0, 4)))
    def step(self, ends: set[int]) -> None:
        rows = self.scheduler.runnable()
        assert set(rows) == {row for row in self.rows if not row.job.full}
        before = {row: row.slot for row in self.rows}
        moves = self.scheduler.moves(rows)
        for row, slot, other in moves:
            assert other is next((held for held in self.rows if held.slot == slot), None)
            if other:
                other.slot = row.slot
            row.slot = slot
        slots = sorted(row.slot for row in rows)
        assert slots == list(range(slots[0], slots[0] + len(slots))) if slots else not moves
        gaps = sorted(before[row] for row in rows)
        if gaps and gaps[-1] - gaps[0] == len(gaps) - 1:
            assert not moves, "they were neighbours already"
        for number in ends:
            if number < len(rows):
                self.rows.remove(rows[number])
                self.scheduler.drop(rows[number])

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        held = self.held()
        assert len(set(held)) == len(held) <= self.slots, "a slot is held twice"
        assert all(0 <= slot < self.slots for slot in held)
        assert self.scheduler.rows == self.rows
        assert self.scheduler.waiting == len(self.queues[False]) + len(self.queues[True])
        assert self.spares() <= max(self.slots - 1, 1), "spare rows hold every slot"

    def teardown(self) -> None:
        if hasattr(self, "scheduler"):
            left = [*self.queues[False], *self.queues[True], *(row.job for row in self.rows)]
            left += [job for job, _ in self.starting]
            found = self.scheduler.drop_all()
            assert len(found) == len(left)
            assert set(found) == set(left)
            assert self.scheduler.drop_all() == []


SchedulerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestScheduler = SchedulerMachine.TestCase


def test_a_short_request_gets_the_next_row_before_a_long_ones_spare_rows() -> None:
    scheduler = Scheduler(slots=3, max_waiting=1)
    spare = [job_of(spare=True) for _ in range(5)]
    for job in spare:
        scheduler.add(job)
    running = []
    while admitted := scheduler.admit():
        running.append(row_of(*admitted))
        scheduler.run(running[-1])
    assert [row.job for row in running] == spare[:2], "one row is kept for whoever comes"
    short, next_short = job_of(), job_of()
    scheduler.add(short)
    admitted = scheduler.admit()
    assert admitted is not None
    assert admitted[0] is short
    scheduler.run(row_of(*admitted))
    scheduler.add(next_short)
    scheduler.drop(running[0])
    admitted = scheduler.admit()
    assert admitted is not None
    assert admitted[0] is next_short, "spare jobs came first, but may wait"
