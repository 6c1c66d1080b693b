"""Joins pieces of speech, while they arrive, with pauses and without clicks."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from server.audio.pcm import Samples

QUIET = 10 ** (-50 / 20)
"""Samples below this (-50 dB of full scale) count as silence: noise floors lie below it, breath and speech above."""

KEPT_BEFORE_SECONDS = 0.05
KEPT_AFTER_SECONDS = 0.1
"""Seconds of silence that are kept at the joined ends of pieces: soft onsets and fading vowels lie within them."""

FADE_SECONDS = 0.005
"""Seconds of fade at each side of a join, and at an end that cuts speech off: too short to be heard as a fade, and long
enough that the step to silence does not click."""


class Joiner:
    """Joins pieces as a stream: it holds back a fade's length, and silence for as long as it may be a piece's last.

    The beginning of the first piece and the end of the last one stay as they are, and so does a single piece, unless
    the last one is cut off or the first one is trimmed. Silence has a fixed level, so that the samples do not depend on
    how they come in.

    Args:
        sample_rate: in Hz.
        trim_start: whether the silence at the beginning of the first piece is trimmed as that of all others is.
    """

    def __init__(self, sample_rate: int, *, trim_start: bool = False) -> None:
        self._rate = sample_rate
        self._before = round(KEPT_BEFORE_SECONDS * sample_rate)
        self._after = round(KEPT_AFTER_SECONDS * sample_rate)
        steps = np.arange(round(FADE_SECONDS * sample_rate), dtype=np.float32)
        self._fade = 0.5 - 0.5 * np.cos(np.pi * (steps + 0.5) / len(steps))
        self._held: Samples = np.zeros(0, np.float32)
        self._begun = not trim_start
        self._allowed = sys.maxsize
        """Samples of silence that may still go out behind what has gone; the first piece may begin with any number."""

    def feed(self, samples: Samples, *, last: bool) -> Samples:
        """Take samples `[n]` of a piece, which is the last one or not; return the samples `[m]` that can go out now."""
        self._held = np.concatenate((self._held, samples))
        if not self._begun:
            self._trim_beginning()
            if len(self._held) < len(self._fade) or not _loud(self._held).size:
                return self._release(0)
            self._fade_in()
        if last:
            return self._release(len(self._held) - len(self._fade))
        return self._release(min(self._end(), len(self._held)) - len(self._fade))

    def end(self, pause: float | None, *, cut_off: bool = False) -> Samples:
        """End a piece; return what is left of it, and the pause if another piece follows.

        Args:
            pause: seconds of silence before the next piece; None if this is the last one.
            cut_off: whether its speech is cut off where its samples end, so that even a last piece fades out.
        """
        if not self._begun:
            self._fade_in()
        if pause is None and not cut_off:
            return self._release(len(self._held))
        rest = (self._held if pause is None else self._held[: self._end()]).copy()
        fade = self._fade[: len(rest)]
        rest[len(rest) - len(fade) :] *= fade[::-1]
        self._held, self._begun = self._held[:0], False
        return np.concatenate((rest, np.zeros(round((pause or 0) * self._rate), np.float32)))

    def _trim_beginning(self) -> None:
        loud = _loud(self._held)
        first = int(loud[0]) if loud.size else len(self._held)
        self._held = self._held[max(0, first - self._before) :]

    def _fade_in(self) -> None:
        fade = self._fade[: len(self._held)]
        self._held = np.concatenate((self._held[: len(fade)] * fade, self._held[len(fade) :]))
        self._begun, self._allowed = True, self._after

    def _end(self) -> int:
        """Find where the held samples would be cut if the piece ended now; it lies beyond them if more may follow."""
        loud = _loud(self._held)
        return int(loud[-1]) + 1 + self._after if loud.size else self._allowed

    def _release(self, count: int) -> Samples:
        """Release the first of the held samples, and note how much silence may still follow them."""
        count = max(0, count)
        self._allowed = self._end() - count
        released, self._held = self._held[:count], self._held[count:]
        return released


def _loud(samples: Samples) -> NDArray[np.intp]:
    """Find the samples that are not silence; NaN counts as sound, so that it cannot be trimmed away."""
    return np.flatnonzero(~(np.abs(samples) < QUIET))
