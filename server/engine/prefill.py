"""A prompt on its way into a slot, slice by slice, so that rows under way lose no more than one slice a frame."""

from __future__ import annotations

from dataclasses import dataclass

from server.engine.job import Job
from server.graphs.talker import TalkerOutput

SLICE_POSITIONS = 256
"""Prompt positions that are prefilled beside a frame. On two cores the 0.6B in int8 takes about a second for these, and
longer slices would gain little: products of so many rows are bound by arithmetic, not by reading weights."""
PART_POSITIONS = 64
"""Positions that a part of a recording counts as, which is decoded for its state: it takes about as long as so many."""


@dataclass(eq=False)
class Prefill:
    """A job that has a slot and is no row yet.

    Attributes:
        job: whose prompt it is.
        slot: where; another one once the scheduler has moved it.
        length: positions that the slot holds.
        seconds: that its slices took.
        output: of the prompt's last position, once that is prefilled.
    """

    job: Job
    slot: int
    length: int = 0
    seconds: float = 0.0
    output: TalkerOutput | None = None

    @property
    def remaining(self) -> int:
        """Positions that are still to be prefilled."""
        return len(self.job.prompt) - self.length
