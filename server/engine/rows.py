"""A row: one job under way, what a step changes of it, and how it can be set back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from server.engine.guard import Guard
from server.engine.job import Job, PcmChunk, RunawayError
from server.engine.sampling import RowSampler
from server.graphs.codec_decoder import CodecState
from server.graphs.frame_state import RowOutput

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]
T = TypeVar("T")

MAX_RETRIES = 3
"""So often in a row a runaway is tried again; the state it is in may be one that other draws do not leave."""
PROGRESS_FRAMES = 25
"""2 s of audio that passed since the last retry make the next one the first again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class RowState:
    """All that a frame changes. Values are replaced, never written to, so that an old state can be gone back to.

    The keys and values in the row's slot need no copy: going back to a smaller `length` forgets the later ones.
    """

    length: int
    """Positions in the slot."""
    output: RowOutput | None
    """A copy of what the talker gave for the last position; None while only the row's slot has it."""
    codec: CodecState
    guard: Guard | None
    """None where the job says nothing of its text."""
    made: int = 0
    """Frames."""
    undecoded: tuple[Codes, ...] = ()
    """Frames made and not yet decoded, `[groups]` each."""
    chunks: int = 0
    """Of audio."""
    unseen: bool = False
    """Whether the talker has yet to see the last frame."""


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
    retries: int = 0
    """In all."""
    _fruitless: int = 0
    """Retries since the last progress."""
    _set_back_to: int = 0
    _good: RowState | None = None
    """The state before the first frame that is held back."""
    _undecoded_from: RowState | None = None
    """The state before the first frame that is not decoded yet, while there is one."""
    _held: list[tuple[PcmChunk, int]] = field(default_factory=list)
    """Audio that is held back, and its frames."""

    def __post_init__(self) -> None:
        self._beginning = self.state

    def accept(self, state: RowState) -> None:
        """Take the state with one more frame in it."""
        suspicious = state.guard is not None and state.guard.suspicious
        if suspicious and self._good is None:
            self._good = self.state
        if not self.state.undecoded:
            self._undecoded_from = self.state
        self.state = state
        self.job.frames = state.made
        self._let_go_unless(suspicious)

    def hear(self, samples: PcmChunk, state: RowState) -> None:
        """Take audio of the undecoded frames, and the state after them."""
        self._held.append((samples, len(self.state.undecoded)))
        self.state, self._undecoded_from = state, None
        # Silence found in this chunk holds back what comes after it.
        self._let_go_unless(self._good is not None and state.guard is not None and state.guard.suspicious)

    def end(self) -> None:
        """The model has ended the speech, or its frames are used up as the caller wished."""
        self.finished = True
        self._let_go_unless(False)

    def _let_go_unless(self, suspicious: bool) -> None:
        if suspicious and not self.finished:
            return
        self._good = None
        for samples, frames in self._held:
            self.job.put(samples, frames)
        self._held.clear()

    def fail(self, error: Exception) -> None:
        """End the row before its audio is whole; what is held back is lost."""
        self.finished, self.error = True, error

    def go_back(self, reason: str) -> bool:
        """Throw away what is held back and go on from before it with other draws; fails the row if that is no use.

        Returns:
            Whether the row goes on.
        """
        good = self._good or self.state
        return self._go_on_from(good, reason)

    def go_back_further(self, reason: str) -> bool:
        """Throw away what nobody can have heard, not being decoded, and go on from before it, as `go_back` does.

        That is all there is without holding audio back: what was handed over is on its way to a listener.
        """
        known = [state for state in (self._good, self._undecoded_from) if state is not None]
        return self._go_on_from(min(known, key=lambda state: state.made, default=self.state), reason)

    def start_anew(self, reason: str) -> bool:
        """Throw away all that was made, which nobody may have heard, and begin with other draws, as `go_back` does."""
        return self._go_on_from(self._beginning, reason)

    def _go_on_from(self, good: RowState, reason: str) -> bool:
        self._good = self._undecoded_from = None  # where frames stay undecoded, going back again begins behind them
        self._held.clear()
        progress = good.made - self._set_back_to >= PROGRESS_FRAMES
        self._fruitless = 0 if progress else self._fruitless
        if self._fruitless == MAX_RETRIES:
            self.fail(RunawayError(f"the model makes no speech of this text ({reason}, {self._fruitless} retries)"))
            return False
        self.retries += 1
        self._fruitless += 1
        self._set_back_to = good.made
        self.state = good
        self.job.frames = good.made
        self.sampler.go_back(good.made, self.retries)
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
