"""What of a row is held back, and the states that it can go back to.

Audio is handed over as soon as the guard has nothing against the row. While the guard suspects it, audio stays here,
and so does the state from before the suspicion: the row goes on from there if the guard is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.engine.guard import Guard
from server.engine.job import Job, PcmChunk, RunawayError
from server.graphs.codec_decoder import CodecState
from server.graphs.frame_state import RowOutput

Codes = NDArray[np.int64]

MAX_RETRIES = 3
"""A row is tried again so often without progress; the state that it is in may be one that other draws do not leave."""
PROGRESS_FRAMES = 25
"""A retry counts as the first again if 2 s of audio have passed since the last one."""


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
    """None where the job does not say how long its text is."""
    made: int = 0
    """Frames that have been made."""
    undecoded: tuple[Codes, ...] = ()
    """Frames that have been made and not yet decoded, `[groups]` each."""
    chunks: int = 0
    """Chunks of audio that have been decoded since the row began, or was last without text."""
    unseen: bool = False
    """Whether the talker has yet to see the last frame."""

    @property
    def suspicious(self) -> bool:
        """Whether the guard suspects the row."""
        return self.guard is not None and self.guard.suspicious


class HoldBack:
    """The audio of one row on its way to its job.

    Args:
        job: which gets the audio.
        beginning: the row's state before its first frame.
    """

    def __init__(self, job: Job, beginning: RowState) -> None:
        self._job = job
        self.beginning = beginning
        self.retries = 0
        """How often the row has gone back."""
        self._fruitless = 0
        """Retries since the last progress."""
        self._set_back_to = 0
        self._good: RowState | None = None
        """The state before the first frame that is held back."""
        self._undecoded_from: RowState | None = None
        """The state before the first frame that is not decoded yet, while there is one."""
        self._held: list[tuple[PcmChunk, int]] = []
        """Audio that is held back, and its frames."""

    def accept(self, before: RowState, after: RowState) -> None:
        """Note that a frame has taken the row from one state to the next."""
        if after.suspicious and self._good is None:
            self._good = before
        if not before.undecoded:
            self._undecoded_from = before
        if not after.suspicious:
            self.release()

    def hear(self, samples: PcmChunk, before: RowState, after: RowState, *, finished: bool) -> None:
        """Take audio of the undecoded frames of the state `before`; `finished` says that it is the row's last."""
        self._held.append((samples, len(before.undecoded)))
        self._undecoded_from = None
        # Silence found in this chunk holds back what comes after it, and not the chunk itself.
        if finished or self._good is None or not after.suspicious:
            self.release()

    def release(self) -> None:
        """Hand over all audio that is held back."""
        self._good = None
        for samples, frames in self._held:
            self._job.put(samples, frames)
        self._held.clear()

    def before_what_is_held(self, now: RowState) -> RowState:
        """The state before the first frame that is held back; `now` if none is."""
        return self._good or now

    def before_what_is_unheard(self, now: RowState) -> RowState:
        """The state before the first frame that nobody can have heard, not being decoded; `now` if there is none.

        Where no audio is held back that is as far as the row can go: what was handed over is on its way to a listener.
        """
        known = [state for state in (self._good, self._undecoded_from) if state is not None]
        return min(known, key=lambda state: state.made, default=now)

    def throw_away(self, state: RowState, reason: str) -> None:
        """Forget all audio and frames behind `state`, from which the row goes on with other draws.

        Raises:
            RunawayError: the row has been tried again too often without progress.
        """
        self._good = self._undecoded_from = None  # where frames stay undecoded, going back again begins behind them
        self._held.clear()
        if state.made - self._set_back_to >= PROGRESS_FRAMES:
            self._fruitless = 0
        if self._fruitless == MAX_RETRIES:
            raise RunawayError(f"the model makes no speech of this text ({reason}, {self._fruitless} retries)")
        self.retries += 1
        self._fruitless += 1
        self._set_back_to = state.made
