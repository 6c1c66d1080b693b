"""A row: one job under way, and how errors of rows stay apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from server.engine.holdback import HoldBack, RowState
from server.engine.job import Job, PcmChunk, RunawayError
from server.engine.sampling import RowSampler

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Row:
    """One job under way in one talker slot."""

    job: Job
    slot: int
    state: RowState
    sampler: RowSampler
    finished: bool = False
    """Whether the row has come to its end, good or bad."""
    error: Exception | None = None
    """Why it ended before its audio was whole."""
    hold_back: HoldBack = field(init=False)

    def __post_init__(self) -> None:
        self.hold_back = HoldBack(self.job, self.state)

    def accept(self, state: RowState) -> None:
        """Take the state with one more frame in it."""
        before, self.state = self.state, state
        self.job.frames = state.made
        self.hold_back.accept(before, state)

    def hear(self, samples: PcmChunk, state: RowState) -> None:
        """Take audio of the undecoded frames, and the state after them."""
        before, self.state = self.state, state
        self.hold_back.hear(samples, before, state, finished=self.finished)

    def end(self) -> None:
        """The model has ended the speech, or its frames are used up as the caller wished."""
        self.finished = True
        self.hold_back.release()

    def fail(self, error: Exception) -> None:
        """End the row before its audio is whole; what is held back is lost."""
        self.finished, self.error = True, error

    def go_back(self, state: RowState, reason: str) -> bool:
        """Go on from an earlier state with other draws, or fail if that has been tried too often.

        Returns:
            Whether the row goes on.
        """
        try:
            self.hold_back.throw_away(state, reason)
        except RunawayError as error:
            self.fail(error)
            return False
        self.state = state
        self.job.frames = state.made
        self.sampler.go_back(state.made, self.hold_back.retries)
        return True


@contextmanager
def ends_row_on_error(row: Row) -> Iterator[None]:
    """An exception in here ends this row and no other."""
    try:
        yield
    except Exception as error:
        row.fail(error)


def batched_or_one_by_one(rows: Sequence[Row], call: Callable[[Sequence[Row]], Sequence[T]]) -> list[tuple[Row, T]]:
    """What `call` gives for each of the rows; if it raises, each is tried alone, and fails if it raises again.

    Args:
        rows: any number.
        call: for some of them at once; a call that raised has changed nothing that a second one would see.
    """
    if len(rows) < 2:
        found: list[tuple[Row, T]] = []
        for row in rows:
            with ends_row_on_error(row):
                found += zip(rows, call(rows), strict=True)
        return found
    try:
        return list(zip(rows, call(rows), strict=True))
    except Exception as error:
        log.warning("a call for %d rows failed (%s): each is tried alone", len(rows), type(error).__name__)
    return [pair for row in rows for pair in batched_or_one_by_one([row], call)]
