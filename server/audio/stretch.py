"""Time-stretch: another speed at the same pitch, while the audio is still being made.

WSOLA (Verhelst and Roelands, "An overlap-add technique based on waveform similarity (WSOLA) for high quality
time-scale modification of speech", ICASSP 1993): windows that follow each other at one rate are taken from the input at
another, each shifted a little to where it continues the one before it best. On a synthetic voice whose stretched
version is known, its spectrum came closer to that at every speed than libav's `atempo`, chained or not, and than
Signalsmith Stretch.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from server.audio.pcm import Samples

MIN_SPEED = 0.25
MAX_SPEED = 5.0

WINDOW_SECONDS = 0.020
"""Longer windows blur what is fast and leave gaps above speed 2; shorter ones hold no whole period of a low voice."""
TOLERANCE_SECONDS = 0.007
"""How far a window may be shifted: both ways together a whole period of a voice at 72 Hz."""
_SHIFT_PENALTY = 0.01
"""Similarity that a shift by the whole tolerance must gain: without it silence, alike everywhere, would be shifted."""
_FAINT = 1e-12
"""Energy, squared, below which windows are no longer compared."""


class TimeStretch:
    """Stretches one mono stream; `n` samples in become `round(n / speed)` samples out, whatever pieces they come in.

    The start and the end of the input are those of the output. Holds back at most 0.1 s of input.

    Args:
        speed: 0.25 to 5; above 1 is faster and shorter.
        sample_rate: Hz.

    Raises:
        ValueError: a speed outside that range.
    """

    def __init__(self, speed: float, sample_rate: int) -> None:
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise ValueError(f"speed must be from {MIN_SPEED} to {MAX_SPEED:.0f}, not {speed}")
        self._speed = speed
        self._hop = round(sample_rate * WINDOW_SECONDS / 2)
        self._tolerance = round(sample_rate * TOLERANCE_SECONDS)
        window = np.hanning(2 * self._hop + 1)[:-1]
        self._rise, self._fall = window[: self._hop], window[self._hop :]
        self._offset = -(2 * self._hop + self._tolerance)
        """Position in the input of the buffer's first sample; before 0 lies silence, as far back as the last windows of
        a short and slow stretch reach: half a window before their own first half."""
        self._input = np.zeros(-self._offset, np.float32)
        self._read = 0
        self._centre = 0
        """Where in the input the last window was centred; window `k` is centred on output sample `k * hop`."""
        self._windows = 1
        self._overlap: NDArray[np.float64] | None = None
        """The last window's second half, faded out, which the next window's first half is added to."""

    def process(self, samples: Samples) -> Samples:
        """Take the next samples `[n]`, give those `[m]` that follow from the input so far; may be none."""
        self._input = np.concatenate([self._input, samples.astype(np.float32, copy=False)])
        self._read += samples.size
        parts = []
        while self._read >= self._needed():
            parts.append(self._next(*self._candidates()))
        return self._joined(parts)

    def finish(self) -> Samples:
        """The samples `[m]` that are left."""
        length = round(self._read / self._speed)
        windows = 1 + math.ceil(length / self._hop)
        beyond = math.ceil(self._speed * self._hop) + 3 * self._hop + 2 * self._tolerance
        self._input = np.concatenate([self._input, np.zeros(beyond, np.float32)])
        given = (self._windows - 1) * self._hop
        parts = []
        while self._windows < windows:
            parts.append(self._next(*self._candidates(length)))
        return self._joined(parts)[: length - given]

    def _needed(self) -> int:
        """Input to have read before the next window: what it may look at, and enough to see that it is not the last."""
        ahead = math.ceil(self._speed * self._windows * self._hop) + 2 * self._hop + self._tolerance
        return max(ahead, math.ceil(self._speed * (self._windows + 1) * self._hop))

    def _candidates(self, length: int | None = None) -> tuple[NDArray[np.int64], int]:
        """Where in the input the next window may be centred, and where the speed alone would put it.

        With the output's length known, the windows around its end are put where the input's end falls on it.
        """
        output = self._windows * self._hop
        if length is not None and output > length - self._hop:
            wanted = self._read + output - length
            return np.array([wanted]), wanted
        wanted = round(self._speed * output)
        return np.arange(wanted - self._tolerance, wanted + self._tolerance + 1), wanted

    def _at(self, centre: int, length: int) -> NDArray[np.float64]:
        """Samples of the input `[length]`, from half a window before `centre`."""
        start = centre - self._hop - self._offset
        return self._input[start : start + length].astype(np.float64)

    def _next(self, centres: NDArray[np.int64], wanted: int) -> Samples:
        """The next output samples `[hop]`: from the best of `centres`, from `wanted` if all are alike."""
        size = 2 * self._hop
        if self._overlap is None:
            self._overlap = self._at(0, size)[self._hop :] * self._fall
        natural = self._at(self._centre + self._hop, size)
        around = self._at(int(centres[0]), size + len(centres) - 1)
        sums = np.concatenate([[0.0], np.cumsum(around * around)])
        energies = np.maximum(sums[size:] - sums[:-size], 0) * (natural @ natural)
        similarity = np.correlate(around, natural, "valid") / np.sqrt(energies + _FAINT)
        shifts = np.abs(centres - wanted) / self._tolerance
        self._centre = int(centres[np.argmax(similarity - _SHIFT_PENALTY * shifts)])

        window = self._at(self._centre, size)
        output = self._overlap + window[: self._hop] * self._rise
        self._overlap = window[self._hop :] * self._fall
        self._windows += 1
        return output.astype(np.float32)

    def _joined(self, parts: list[Samples]) -> Samples:
        """The parts as one; input that no later window looks at is let go."""
        nearest = round(self._speed * self._windows * self._hop) - self._tolerance
        passed = min(self._centre, nearest) - 2 * self._hop - self._offset
        if passed > 0:
            self._input = self._input[passed:].copy()
            self._offset += passed
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
