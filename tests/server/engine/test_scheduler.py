"""The scheduler under any order of events: no job lost, none run twice, order kept, every slot held once.

Time is that of the machine below: it passes when the machine says so.
"""

from __future__ import annotations

from collections import Counter
from typing import cast

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.engine.holdback import RowState
from server.engine.job import Job, JobError, Listener, Sampling
from server.engine.prefill import Prefill
from server.engine.prompt import Prompt
from server.engine.rows import Row
from server.engine.sampling import RowSampler
from server.engine.scheduler import FIRST_WAIT_SECONDS, MOST_PASSED_OVER, QueueFull, Scheduler

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
NO_PROMPT = Prompt(np.zeros((1, 1), np.float32), prefix=1)
SILENCE = np.zeros(1, np.float32)
FRAME_SECONDS = 0.5
BUDGET = 256
"""Positions that all slices beside one frame have together, at most."""
PROMPTS = {
    "short": [9, 20],
    "middling": [9, 100],
    "as long as a slice": [256],
    "long": [9, 256, 256, 40],
    "by a long instruction": [256, 44, 30],
    "behind a recording": [9, 120, 0, 0, 0],
    "behind a long recording": [9, 10, *[0] * 9],
}
"""Lengths of the slices that prompts are cut into; 0 is a part of a recording."""
PART = 64
"""Positions that a part of a recording counts as."""


class ScriptedJob(Job):
    """A job whose text has come, or has not."""

    ready, starved, awaits_text = True, False, False
    slices: list[int]
    """Lengths of the slices that are still to be made; 0 is a part of a recording."""

    def arrive(self, *, ready: bool, starved: bool) -> None:
        self.ready, self.starved = ready, starved


def job_of(
    *,
    spare: bool = False,
    listener: Listener | None = None,
    number: int = 0,
    live: bool = False,
    at: float = 0.0,
    speed: float = 1.0,
    prompt: str = "short",
) -> ScriptedJob:
    """A job that comes at some time."""
    whose = {"listener": listener, "number": number, "speed": speed}
    slices = PROMPTS[prompt]
    embeddings = np.zeros((sum(slices), 1), np.float32)
    job = ScriptedJob(Prompt(embeddings, slices[0]), SAMPLING, 0, 9, capacity=2, spare=spare, **whose)
    job.slices = list(slices)
    job.awaits_text, job.submitted = live, at
    return job


def positions(prefill: Prefill) -> int:
    """How much of the budget the next slice takes."""
    return cast(ScriptedJob, prefill.job).slices[0] or PART


def row_of(job: Job, slot: int) -> Row:
    return Row(job, slot, cast(RowState, None), cast(RowSampler, None))


class SchedulerMachine(RuleBasedStateMachine):
    """Drives a scheduler as the engine does, beside lists that say what must be."""

    @initialize(slots=st.integers(1, 5), max_waiting=st.integers(0, 3))
    def begin(self, slots: int, max_waiting: int) -> None:
        self.scheduler = Scheduler(slots, max_waiting, FRAME_SECONDS)
        self.slots, self.max_waiting = slots, max_waiting
        self.now = 0.0
        self.book, self.letter = Listener(), Listener()
        self.queues: dict[bool, list[ScriptedJob]] = {False: [], True: []}
        self.starting: list[Prefill] = []
        self.passed_over = 0
        """Frames in a row in which the prefill that was under way longest had no slice."""
        self.rows: list[Row] = []
        self.started: list[Job] = []
        self.heard_to: dict[Listener, float] = {}
        self.made: dict[Listener, list[float | None]] = {}
        """Seconds of the jobs of each listener, in order; None of those that are still to be made."""

    def held(self) -> list[Row | Prefill]:
        return [*self.starting, *self.rows]

    def may_have_a_slot(self, job: Job) -> bool:
        most = max(self.slots - 1, 1)
        live = sum(held.job.awaits_text for held in self.held())
        of_one = sum(held.job.listener is job.listener for held in self.held())
        return of_one < most and (live < most or not job.awaits_text)

    def due(self, job: ScriptedJob) -> float:
        """When a job is due: some time after it came, or when what its listener has of other jobs has been heard."""
        if job.listener not in self.heard_to:
            return job.submitted + FIRST_WAIT_SECONDS
        return max(job.submitted, self.heard_to[job.listener])

    def continuing(self) -> list[ScriptedJob]:
        """Of each listener who has neither a slot nor a job that waits as any other, the spare job that came first."""
        others = {job.listener for job in [*(held.job for held in self.held()), *self.queues[False]]}
        firsts: dict[Listener, ScriptedJob] = {}
        for job in self.queues[True]:
            firsts.setdefault(job.listener, job)
        return [job for listener, job in firsts.items() if listener not in others]

    @rule(seconds=st.sampled_from([0.5, 3.0, FIRST_WAIT_SECONDS]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        spare=st.booleans(),
        live=st.booleans(),
        whose=st.sampled_from([None, "book", "letter"]),
        speed=st.sampled_from([0.5, 1.0]),
        retry=st.booleans(),
        prompt=st.sampled_from(list(PROMPTS)),
    )
    def add(self, spare: bool, live: bool, whose: str | None, speed: float, retry: bool, prompt: str) -> None:
        listener = getattr(self, whose) if whose else None
        known = self.made.setdefault(listener, []) if listener else []
        again = retry and None in known
        number = known.index(None) if again else len(known)
        if not again:
            known.append(None)
        whose_and_what = {"listener": listener, "number": number, "prompt": prompt}
        job = job_of(spare=spare, live=live, at=self.now, speed=speed, **whose_and_what)
        places = self.max_waiting + self.slots - len(self.held())
        if not spare and sum(not waiting.over for waiting in self.queues[False]) >= places:
            with pytest.raises(QueueFull):
                self.scheduler.add(job)
        else:
            self.scheduler.add(job)
            self.queues[spare].append(job)

    @precondition(lambda self: self.jobs())
    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        """For one that has a slot nothing changes."""
        data.draw(st.sampled_from(self.queues[True] or self.jobs())).promote()

    @rule()
    def collect_promoted(self) -> None:
        self.queues[False][:0] = [job for job in self.queues[True] if not job.spare]
        self.queues[True] = [job for job in self.queues[True] if job.spare]
        self.scheduler.collect_promoted()

    def jobs(self) -> list[ScriptedJob]:
        return [*(held.job for held in self.held()), *self.queues[False], *self.queues[True]]

    @precondition(lambda self: self.jobs())
    @rule(data=st.data(), starved=st.booleans())
    def text_comes_or_is_used_up(self, data: st.DataObject, starved: bool) -> None:
        """A job in a queue has no prompt where its text has not come; one that has a slot always has its prompt."""
        job = data.draw(st.sampled_from(self.jobs()))
        has_slot = any(held.job is job for held in self.held())
        job.arrive(ready=has_slot or not starved, starved=starved)
        assert (job in self.scheduler.starved()) == (starved and not job.over)

    @precondition(lambda self: self.jobs())
    @rule(data=st.data())
    def text_ends(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs()))
        job.awaits_text = False
        job.arrive(ready=True, starved=False)

    @rule()
    def admit(self) -> None:
        free = self.slots - len(self.held())
        candidates = sorted([*self.queues[False], *self.continuing()], key=self.due) if free else []
        if free > 1 or (free and self.slots == 1):
            candidates += self.queues[True]
        expected = next((job for job in candidates if job.ready and self.may_have_a_slot(job)), None)
        assert self.scheduler.can_admit() == (expected is not None)
        prefill = self.scheduler.admit()
        if expected is None:
            assert prefill is None
            return
        assert prefill is not None
        assert prefill.job is expected, "not the first of those who may"
        assert expected not in self.started, "run twice"
        assert prefill.slot not in {held.slot for held in self.held()}
        assert 0 <= prefill.slot < self.slots
        for queue in self.queues.values():
            if expected in queue:
                queue.remove(expected)
        self.started.append(expected)
        self.starting.append(prefill)
        expected.start(self.now)
        self.heard_to.setdefault(expected.listener, self.now)

    @rule(fails=st.sampled_from([None, None, 0, 1]))
    def slices(self, fails: int | None) -> None:
        """The slices beside one frame, of which one may fail."""
        order = sorted(self.starting, key=lambda prefill: sum(prefill.job.slices))
        ahead = np.cumsum([sum(length or PART for length in prefill.job.slices) for prefill in order])
        at_once = [prefill for prefill, size in zip(order, ahead, strict=True) if size <= BUDGET]
        oldest = self.starting[0] if self.starting else None
        if oldest and self.passed_over == MOST_PASSED_OVER:
            order, at_once = [oldest, *(prefill for prefill in order if prefill is not oldest)], []
        left, served, failed = BUDGET, [], None
        for prefill in self.scheduler.slices(positions):
            assert prefill in self.starting, "a slice of a job that has none left"
            for first in order[: order.index(prefill)]:
                assert first not in self.starting or positions(first) > left, "another one is done sooner"
            left -= positions(prefill)
            assert left >= 0, "rows under way wait for more than a slice"
            if len(served) == fails:
                failed = prefill
                self.starting.remove(prefill)
                self.scheduler.release(prefill)
            else:
                self.make_slice(prefill)
            served.append(prefill)
        assert all(positions(prefill) > left for prefill in self.starting), "there was room for another slice"
        begun = {row.job for row in self.rows}
        assert all(prefill.job in begun for prefill in at_once if prefill is not failed), "a short one waits"
        self.passed_over = self.passed_over + 1 if oldest and oldest not in served else 0
        assert self.passed_over <= MOST_PASSED_OVER, "short ones hold up a long one"

    def make_slice(self, prefill: Prefill) -> None:
        """Make the next slice of a prefill, which becomes a row behind its last one."""
        job = cast(ScriptedJob, prefill.job)
        prefill.length += job.slices.pop(0)
        if not job.slices:
            assert not prefill.remaining
            self.starting.remove(prefill)
            self.rows.append(row_of(job, prefill.slot))
            self.scheduler.run(prefill, self.rows[-1])

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
            assert job.full or job.over

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        jobs = [*self.queues[False], *self.queues[True], *(row.job for row in self.rows)]
        jobs += [prefill.job for prefill in self.starting]
        if jobs:
            data.draw(st.sampled_from(jobs)).cancel()

    @precondition(lambda self: self.jobs())
    @rule(data=st.data())
    def lose_patience(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.jobs())).finish(JobError("no text has come"))

    @rule()
    def drop_over(self) -> None:
        present = self.jobs()
        assert set(self.scheduler.drop_over()) == {job for job in present if job.over}
        self.rows = [row for row in self.rows if not row.job.over]
        self.starting = [prefill for prefill in self.starting if not prefill.job.over]
        for queue in self.queues.values():
            queue[:] = [job for job in queue if not job.over]
        assert self.scheduler.drop_over() == []

    @rule(prompts=st.lists(st.sampled_from(list(PROMPTS)), min_size=2, max_size=12), at_once=st.booleans())
    def many_come(self, prompts: list[str], at_once: bool) -> None:
        """At once, or one a frame while others are under way; rows end with their first frame."""
        for prompt in prompts:
            self.add(spare=False, live=False, whose=None, speed=1.0, retry=False, prompt=prompt)
            if not at_once:
                self.frame()
        self.frame()

    def frame(self) -> None:
        """All that the engine does for one frame."""
        self.drop_over()
        self.collect_promoted()
        while self.scheduler.can_admit():
            self.admit()
        self.slices(fails=None)
        self.step(ends=set(range(self.slots)), failed=False)

    @rule(ends=st.sets(st.integers(0, 4)), failed=st.booleans(), to_front=st.booleans())
    def step(self, ends: set[int], failed: bool, to_front: bool = False) -> None:
        rows = self.scheduler.runnable()
        assert set(rows) == {row for row in self.rows if not row.job.full and not row.job.starved}
        before = {row: row.slot for row in self.rows}
        moves = self.scheduler.moves(rows, to_front=to_front)
        for row, slot, other in moves:
            assert other is next((held for held in self.held() if held.slot == slot), None)
            if other:
                other.slot = row.slot
            row.slot = slot
        slots = sorted(row.slot for row in rows)
        assert slots == list(range(slots[0], slots[0] + len(slots))) if slots else not moves
        assert not (to_front and slots and slots[0])
        gaps = sorted(before[row] for row in rows)
        if gaps and gaps[-1] - gaps[0] == len(gaps) - 1 and not (to_front and gaps[0]):
            assert not moves, "they were neighbours already"
        for row in rows:
            row.job.frames += 1
        for number in ends:
            if number < len(rows):
                job = rows[number].job
                rows[number].error = JobError("no speech") if failed else None
                if not failed:
                    self.make(job, job.frames * FRAME_SECONDS / job.speed)
                self.rows.remove(rows[number])
                self.scheduler.drop(rows[number], self.now)

    def make(self, job: Job, seconds: float) -> None:
        """A job is heard when all before it are."""
        known = self.made.setdefault(job.listener, [None])
        before = known.index(None) if None in known else len(known)
        if job.number < before:
            return
        known[job.number] = seconds
        for made in known[before:]:
            if made is None:
                break
            self.heard_to[job.listener] = max(self.heard_to[job.listener] + made, self.now)

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        held = [held.slot for held in self.held()]
        assert len(set(held)) == len(held) <= self.slots, "a slot is held twice"
        assert all(0 <= slot < self.slots for slot in held)
        assert self.scheduler.rows == self.rows
        assert self.scheduler.prefills == self.starting
        assert self.scheduler.waiting == len(self.queues[False]) + len(self.queues[True])
        of_one = max(Counter(held.job.listener for held in self.held()).values(), default=0)
        assert of_one <= max(self.slots - 1, 1), "one request holds every slot"
        live = sum(held.job.awaits_text for held in self.held())
        assert live <= max(self.slots - 1, 1), "every slot is held for text that may not come"

    def teardown(self) -> None:
        if hasattr(self, "scheduler"):
            left = [*self.queues[False], *self.queues[True], *(row.job for row in self.rows)]
            left += [prefill.job for prefill in self.starting]
            found = self.scheduler.drop_all()
            assert len(found) == len(left)
            assert set(found) == set(left)
            assert self.scheduler.drop_all() == []


SchedulerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestScheduler = SchedulerMachine.TestCase


def admitted(scheduler: Scheduler) -> list[Job]:
    """Give slots to all who may have one, and make rows of them."""
    jobs = []
    while prefill := scheduler.admit():
        scheduler.run(prefill, row_of(prefill.job, prefill.slot))
        jobs.append(prefill.job)
    return jobs


def test_short_prompts_that_keep_coming_do_not_hold_up_a_long_one() -> None:
    scheduler = Scheduler(2, 9, FRAME_SECONDS)
    long = job_of(prompt="long")
    scheduler.add(long)
    started: list[Job] = []
    frames = 0
    while long not in started:
        frames += 1
        assert frames < 9 * (MOST_PASSED_OVER + 1)
        scheduler.add(job_of())
        while scheduler.admit():
            pass
        for prefill in scheduler.slices(positions):
            job = cast(ScriptedJob, prefill.job)
            prefill.length += job.slices.pop(0)
            if not job.slices:
                started.append(job)
                scheduler.release(prefill)
    assert len(started) > frames // 2, "most frames are those of short ones all the same"


@pytest.mark.parametrize("slots", [2, 3, 4, 8])
def test_texts_that_still_come_leave_a_slot_to_others(slots: int) -> None:
    scheduler = Scheduler(slots, 2, FRAME_SECONDS)
    live = [job_of(live=True) for _ in range(slots)]
    for job in live:
        scheduler.add(job)
    assert admitted(scheduler) == live[:-1]
    short = job_of()
    scheduler.add(short)
    assert admitted(scheduler) == [short], "it overtakes the text that still comes"
    scheduler.drop(scheduler.rows[-1], 0.0)
    assert not scheduler.can_admit()
    live[0].awaits_text = False
    assert admitted(scheduler) == live[-1:]


@pytest.mark.parametrize("slots", [2, 3, 4, 8])
def test_a_request_that_comes_while_a_book_is_read_has_a_slot_at_once(slots: int) -> None:
    scheduler, book = Scheduler(slots, 1, FRAME_SECONDS), Listener()
    heard = job_of(listener=book)
    ahead = [job_of(spare=True, listener=book) for _ in range(2 * slots)]
    for job in (heard, *ahead):
        scheduler.add(job)
    assert admitted(scheduler) == [heard, *ahead[: slots - 2]]
    short = job_of()
    scheduler.add(short)
    assert admitted(scheduler) == [short]


def test_parts_of_one_request_that_are_no_spare_ones_leave_a_slot_too() -> None:
    scheduler, one = Scheduler(3, 9, FRAME_SECONDS), Listener()
    greedy = [job_of(listener=one) for _ in range(4)]
    for job in greedy:
        scheduler.add(job)
    assert admitted(scheduler) == greedy[:2]
    other = job_of()
    scheduler.add(other)
    assert admitted(scheduler) == [other], "it does not wait behind those that may not run yet"


def test_one_slot_is_for_everybody() -> None:
    scheduler = Scheduler(1, 1, FRAME_SECONDS)
    spare = job_of(spare=True)
    scheduler.add(spare)
    assert admitted(scheduler) == [spare]


def test_a_promotion_at_any_moment_loses_no_job() -> None:
    """A job is promoted from another thread: here while the scheduler sorts the spare ones, at each point of it."""

    class Promoted(Job):
        """Spare when asked so many times, then not."""

        asked = 0

        @property
        def spare(self) -> bool:
            self.asked += 1
            return self.asked <= self.until

        @spare.setter
        def spare(self, value: bool) -> None:
            pass

    for until in range(6):
        Promoted.until = until
        scheduler = Scheduler(1, 1, FRAME_SECONDS)
        job = Promoted(NO_PROMPT, SAMPLING, 0, 9)
        job.asked = -1  # `add` asks first
        scheduler.add(job)
        for _ in range(4):
            scheduler.collect_promoted()
        assert scheduler.waiting == 1
        assert admitted(scheduler) == [job]


def test_what_lies_behind_a_job_that_failed_is_not_heard_yet() -> None:
    """So the job that is made in its place comes before those who have waited for less than a newcomer may."""
    scheduler, book = Scheduler(3, 9, FRAME_SECONDS), Listener()
    heard, behind = job_of(listener=book), job_of(spare=True, listener=book, number=1)
    for job in (heard, behind):
        scheduler.add(job)
    assert admitted(scheduler) == [heard, behind]
    heard.start(0.0)
    behind.frames = 5000
    first, second = scheduler.rows
    scheduler.drop(second, 1.0)
    first.error = JobError("no speech")
    scheduler.drop(first, 2.0)
    other, again = job_of(at=1.0), job_of(spare=True, listener=book, at=2.0)
    for job in (other, again):
        scheduler.add(job)
    assert admitted(scheduler) == [again, other]
    again.frames = 100
    scheduler.drop(scheduler.rows[0], 3.0)
    assert book.served == pytest.approx(5100 * FRAME_SECONDS), "both are there now"
