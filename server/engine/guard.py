"""Judges whether a row still makes speech: by how long it goes on, by how its codes repeat, and by how quiet it is.

Pure values: a guard is never changed, `after` and `heard` return the next one, so that a row set back has its old one.
All lengths are in codec frames, 12.5 a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FRAMES_PER_TOKEN = 4
"""The usual length: people speak 2.5 to 5 text tokens a second, which makes 2.5 to 5 frames of each token."""
SLOW = 2
"""A row that is so many times as long as usual is no speech at a normal pace: what follows is held back."""
TOO_SLOW = 3
"""A row that is so many times as long as usual is a runaway, even of a voice that is told to speak very slowly."""
SLOW_FLOOR, TOO_SLOW_FLOOR = 38, 75
"""3 s and 6 s are added to these lengths, for pauses and for tokens that are long to say, such as "WWW"."""

LEAST_FRAMES_PER_TOKEN = 0.5
"""This is 25 tokens a second, five times as fast as anyone speaks; with fewer frames most of the text is missing."""

LONGEST_PERIOD = 25
"""Repetition is looked for at every distance up to this, which is 2 s."""
EQUAL_SHARE = 0.75
"""Two frames are alike if they share this part of their codes, that of codebook 0 among them."""
ALIKE_HOLD, ALIKE_LIMIT = 8, 38
"""Frames in a row that are alike to those a period before: 0.6 s of them is rare in sampled speech, and 3 s does not
happen."""
SAME_CODE_HOLD, SAME_CODE_LIMIT = 38, 75
"""The same for codebook 0 alone, 3 s and 6 s: its code hardly changes in a natural pause, which takes up to 2 s."""

SILENCE_RMS = 1e-3
"""A frame is silent below this root mean square, which is -60 dBFS."""
SILENT_HOLD, SILENT_LIMIT = 30, 50
"""Silence is held back after 2.4 s and is a runaway after 4 s; natural pauses take up to 2 s."""


@dataclass(frozen=True, eq=False)
class Guard:
    """What is known of one row; build it with `Guard.of`.

    `recent` holds the last frames, the newest first, int64 `[LONGEST_PERIOD, groups]`. `alike` and `same_code` count
    for each period how many frames in a row repeat those a period before, int64 `[LONGEST_PERIOD]`.
    """

    tokens: int
    repeated: int
    recent: NDArray[np.int64]
    alike: NDArray[np.int64]
    same_code: NDArray[np.int64]
    made: int = 0
    silent: int = 0
    """Frames at the end of the audio heard so far that are near silence."""

    @classmethod
    def of(cls, text_tokens: int, groups: int, repeated_tokens: int = 0) -> Guard:
        """The guard of a row that has made nothing yet.

        Args:
            text_tokens: of the text to be said.
            groups: codes of a frame.
            repeated_tokens: of these, those that repeat what stands before them.
        """
        none = np.zeros(LONGEST_PERIOD, np.int64)
        return cls(text_tokens, repeated_tokens, np.full((LONGEST_PERIOD, groups), -1, np.int64), none, none)

    def after(self, codes: NDArray[np.int64]) -> Guard:
        """One frame `[groups]` later."""
        equal = self.recent == codes
        same_code = equal[:, 0]
        alike = same_code & (equal.mean(axis=1) >= EQUAL_SHARE)
        return replace(
            self,
            recent=np.concatenate((codes[None], self.recent[:-1])),
            alike=np.where(alike, self.alike + 1, 0),
            same_code=np.where(same_code, self.same_code + 1, 0),
            made=self.made + 1,
        )

    def heard(self, samples: NDArray[np.float32]) -> Guard:
        """With the decoded audio of some more frames, `[frames, samples_per_frame]`."""
        loud = np.flatnonzero(np.square(samples).mean(axis=1) >= SILENCE_RMS**2)
        return replace(self, silent=len(samples) - 1 - int(loud[-1]) if loud.size else self.silent + len(samples))

    @property
    def suspicious(self) -> bool:
        """Whether the newest frame, and what follows, should be held back until this is clear."""
        return any(value >= hold for _, value, hold, _ in self._measures())

    @property
    def runaway(self) -> str | None:
        """Why what is held back is no speech of this text, once that is certain."""
        return next((name for name, value, _, limit in self._measures() if value >= limit), None)

    @property
    def ends_too_soon(self) -> bool:
        """Whether an end at this point leaves most of the text unsaid."""
        return self.made < LEAST_FRAMES_PER_TOKEN * self.tokens

    def _measures(self) -> tuple[tuple[str, int, int, int], ...]:
        """Name, value, the value from which frames are held, and that from which they are a runaway."""
        usual = FRAMES_PER_TOKEN * self.tokens
        told = SLOW * FRAMES_PER_TOKEN * self.repeated  # frames that repeat since the text does
        return (
            ("too long for its text", self.made, SLOW * usual + SLOW_FLOOR, TOO_SLOW * usual + TOO_SLOW_FLOOR),
            ("frames repeat", int(self.alike.max()), ALIKE_HOLD + told, ALIKE_LIMIT + told),
            ("codebook 0 repeats", int(self.same_code.max()), SAME_CODE_HOLD + told, SAME_CODE_LIMIT + told),
            ("silence", self.silent, SILENT_HOLD, SILENT_LIMIT),
        )
