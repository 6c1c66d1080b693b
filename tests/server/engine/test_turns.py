"""Who has a row when more requests are heard, or wait to be, than there are rows.

The engine here is a clock: every row that is admitted makes audio at one pace, and a listener hears it as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest

from server.engine.holdback import RowState
from server.engine.job import Job, Listener, Sampling
from server.engine.prompt import Prompt
from server.engine.rows import Row
from server.engine.sampling import RowSampler
from server.engine.scheduler import FIRST_WAIT_SECONDS, Scheduler

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
NO_PROMPT = Prompt(np.zeros((1, 1), np.float32), prefix=1)
FRAME_SECONDS = 0.08
AHEAD = 5
"""Jobs that a reading hands to the engine at most."""


@dataclass
class Reader:
    """A request whose chunks have so many frames each, and whose listener plays from the first frame on.

    Its speech has a speed: so many seconds of what is made are heard in one.
    """

    name: str
    chunks: list[int]
    speed: float = 1.0
    listener: Listener = field(default_factory=Listener)
    jobs: list[Job] = field(default_factory=list)
    began: float | None = None
    """When its first frame came."""
    silent: float = 0.0
    """Seconds for which there was nothing to play."""

    def submit(self, scheduler: Scheduler, now: float) -> None:
        """Hand over the first chunk, or, once that is heard, those that are made ahead; promote what is heard."""
        ahead = 1 if self.began is None else AHEAD
        while len(self.jobs) < len(self.chunks) and sum(not job.over for job in self.jobs) < ahead:
            frames = self.chunks[len(self.jobs)]
            number = len(self.jobs)
            whose = {"listener": self.listener, "number": number, "speed": self.speed}
            job = Job(NO_PROMPT, SAMPLING, 0, frames, 9999, spare=number > 0, **whose)
            job.submitted = now
            self.jobs.append(job)
            scheduler.add(job)
        if (heard := next((job for job in self.jobs if not job.over), None)) and heard.spare:
            heard.promote()
            scheduler.collect_promoted()

    @property
    def played(self) -> float:
        """Seconds to be heard that have been made in order."""
        frames = 0
        for job in self.jobs:
            frames += job.frames
            if not job.over:
                break
        return frames * FRAME_SECONDS / self.speed

    @property
    def over(self) -> bool:
        return len(self.jobs) == len(self.chunks) and all(job.over for job in self.jobs)

    def listen(self, now: float, seconds: float) -> None:
        """Note that this time has passed."""
        if self.began is None and self.played:
            self.began = now
        elif self.began is not None and not self.over and self.played < now - self.began - self.silent:
            self.silent += seconds


class Simulation:
    """Rows that each make so many seconds of audio in a second, and requests that come at some times."""

    def __init__(self, slots: int, speed: float) -> None:
        self.scheduler = Scheduler(slots, 64, FRAME_SECONDS)
        self.step = FRAME_SECONDS / speed
        self.now = 0.0
        self.readers: list[Reader] = []

    def come(self, name: str, chunks: list[int], speed: float = 1.0) -> Reader:
        reader = Reader(name, chunks, speed)
        reader.submit(self.scheduler, self.now)
        self.readers.append(reader)
        return reader

    def admit(self) -> None:
        while prefill := self.scheduler.admit():
            prefill.job.start(self.now)
            self.scheduler.run(prefill, Row(prefill.job, prefill.slot, cast(RowState, None), cast(RowSampler, None)))

    def frame(self) -> None:
        """Advance all rows by a frame, as the engine does, which goes on before readers hear of what has been made."""
        self.admit()
        self.now += self.step
        for row in list(self.scheduler.rows):
            row.job.frames += 1
            if row.job.frames == row.job.max_frames:
                self.scheduler.drop(row, self.now)
                row.job.finish()
        self.admit()
        for reader in self.readers:
            reader.listen(self.now, self.step)
            reader.submit(self.scheduler, self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.frame()


CHUNK, LONG_CHUNK = 100, 550


def test_who_is_heard_keeps_a_row_while_others_come_for_all_of_them() -> None:
    simulation = Simulation(slots=4, speed=4.0)
    listener = simulation.come("listener", [CHUNK] * 6)
    simulation.run(1.0)
    others = [simulation.come(f"other {number}", [LONG_CHUNK] * 3) for number in range(4)]
    simulation.run(15.0)
    assert listener.over
    assert listener.silent == 0.0
    simulation.run(10.0)
    assert all(other.began is not None for other in others), "each has had its turn"


def test_who_hears_twice_as_fast_keeps_a_row_too() -> None:
    """Less has been made in advance for a fast listener than for another one of the same audio."""
    simulation = Simulation(slots=1, speed=2.2)
    listener = simulation.come("listener", [CHUNK] * 1000, speed=2.0)
    simulation.run(60.0)
    simulation.come("other", [LONG_CHUNK])
    simulation.run(20.0)
    assert listener.silent == 0.0


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_books_give_way_to_those_who_have_waited(slots: int, speed: float) -> None:
    """A newcomer begins though every row has a book without an end, after the time that it may wait and one row."""
    simulation = Simulation(slots, speed)
    for number in range(slots):
        simulation.come(f"book {number}", [CHUNK] * 1000)
    simulation.run(20.0)
    came = simulation.now
    short = [simulation.come(f"short {number}", [10]) for number in range(slots)]
    simulation.run(FIRST_WAIT_SECONDS + (slots + 1) * CHUNK * FRAME_SECONDS / speed + 10)
    waits = [short_one.began and short_one.began - came for short_one in short]
    assert all(wait is not None for wait in waits), waits


def test_a_book_that_is_far_ahead_gives_way_at_once() -> None:
    simulation = Simulation(slots=1, speed=10.0)
    book = simulation.come("book", [CHUNK] * 1000)
    simulation.run(10.0)
    came = simulation.now
    short = simulation.come("short", [10])
    simulation.run(2.0)
    assert short.began is not None
    assert short.began - came <= (CHUNK + 2) * FRAME_SECONDS / 10 + 1e-6, "it waited for the row under way alone"
    assert book.silent == 0.0


def test_nobody_waits_for_ever_while_newcomers_never_end() -> None:
    simulation = Simulation(slots=2, speed=1.5)
    books = [simulation.come(f"book {number}", [CHUNK] * 1000) for number in range(2)]
    made = []
    for number in range(120):
        simulation.come(f"short {number}", [CHUNK])
        simulation.run(4.0)
        made.append([book.played for book in books])
    for before, after in zip(made[::30], made[30::30], strict=False):
        assert all(later > earlier for earlier, later in zip(before, after, strict=True)), "a book stands still"
    late = simulation.come("late", [CHUNK])
    waiting = [reader for reader in simulation.readers if reader.began is None]
    simulation.run(len(waiting) * CHUNK * FRAME_SECONDS / 1.5 + FIRST_WAIT_SECONDS)
    assert late.began is not None, "it waits for those that came before it, and for no others"
