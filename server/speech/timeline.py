"""Brings a reading's samples to the speed that is wanted, and notes where in them each of its pieces lies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

import numpy as np

from server.audio.pcm import Samples
from server.audio.stretch import TimeStretch

Kind = Literal["speech", "silence", "join"]
"""A chunk, a silence that the text asks for, or the pause between two chunks."""


@dataclass
class TimedPiece:
    """A piece that is heard.

    Attributes:
        kind: what it is.
        text: what is said, as the model is given it; empty for what is silent.
        start: its first sample, counted from the first one that is heard.
        end: the sample behind its last one; None while it is heard.
    """

    kind: Kind
    text: str
    start: int
    end: int | None = None


class Timeline:
    """The samples that are heard, in the order in which they are heard.

    While a time-stretch is under way, a piece begins or ends at the sample at which the speed alone would put it, from
    which the stretch's windows may be some 20 ms off; where it has been finished, the places are exact.

    Args:
        sample_rate: in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._speed = 1.0
        self._stretch: TimeStretch | None = None
        """The time-stretch that is under way."""
        self._before = 0
        """Samples that were heard before the stretch that is under way."""
        self._fed = 0
        """Samples that it has been given."""
        self.pieces: list[TimedPiece] = []
        """The pieces that have begun; each begins where the one before it ends."""

    @property
    def position(self) -> int:
        """Samples that are heard of all that has been fed so far."""
        return self._before + round(self._fed / self._speed)

    def end(self) -> None:
        """Note that the piece which has begun ends here; there may be none."""
        if self.pieces and self.pieces[-1].end is None:
            self.pieces[-1].end = self.position

    async def feed(self, samples: Samples, kind: Kind, text: str = "") -> Samples:
        """Take the next samples `[n]` of a piece; return the samples `[m]` that can be heard now.

        They are stretched in a thread, because stretching a second of audio may take some 20 ms.

        Args:
            samples: at the speed at which they were made.
            kind: what kind of piece they are of.
            text: the text of a piece of speech.
        """
        if samples.size:
            self._begin(kind, text)
        self._fed += samples.size
        if self._speed == 1:
            return samples
        self._stretch = self._stretch or TimeStretch(self._speed, self.sample_rate)
        return await asyncio.to_thread(self._stretch.process, samples)

    async def finish(self) -> Samples:
        """Return the samples `[m]` that are left of what was fed; what is fed next is stretched anew."""
        rest = np.zeros(0, np.float32) if self._stretch is None else await asyncio.to_thread(self._stretch.finish)
        self._before, self._fed, self._stretch = self.position, 0, None
        return rest

    async def change_speed(self, speed: float) -> Samples:
        """Let what is fed next be heard at another speed; return the samples `[m]` that are left of what was fed."""
        if speed == self._speed:
            return np.zeros(0, np.float32)
        rest = await self.finish()
        self._speed = speed
        return rest

    def silence(self, count: int) -> Samples:
        """So many samples of silence, which are heard at no other speed; all that was fed has been finished."""
        self._begin("silence")
        self._before += count
        return np.zeros(count, np.float32)

    def _begin(self, kind: Kind, text: str = "") -> None:
        """Note that a piece begins with the next samples, unless one is under way."""
        if not self.pieces or self.pieces[-1].end is not None:
            self.pieces.append(TimedPiece(kind, text, self.position))
