"""Finds the words that the talker still has to learn, by what each cost when it was last read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NO_WORD = 0
"""Index of frames whose word is not known."""
_UNREAD = 0.3
"""Cost in nats that a word is taken to have until it has been read."""
_SHARE = 0.5
"""Weight of the last reading against those before."""


class WordLosses:
    """A number for each word, and running means of what words cost, in nats a frame.

    They are not kept between runs: one that goes on finds them again within a few hundred steps.
    """

    def __init__(self) -> None:
        self._numbers = {"": NO_WORD}
        self._costs = np.zeros(0)

    def number(self, word: str) -> int:
        """Return the number of a word, whatever its case and the punctuation around it."""
        return self._numbers.setdefault(word.strip(".,;:?!'\"()").lower(), len(self._numbers))

    def _all(self) -> NDArray[np.float64]:
        more = len(self._numbers) - len(self._costs)
        self._costs = np.pad(self._costs, (0, more), constant_values=_UNREAD)
        return self._costs

    def update(self, words: list[NDArray[np.int64]], losses: NDArray[np.float32]) -> None:
        """Note what was read.

        Args:
            words: numbers of each text's words, `[frames]`.
            losses: nats, `[texts, frames]`, padded.
        """
        numbers = np.concatenate(words)
        costs = np.concatenate([row[: len(said)] for row, said in zip(losses, words, strict=True)])
        read, place = np.unique(numbers, return_inverse=True)
        found = np.bincount(place, costs) / np.bincount(place)
        every = self._all()
        every[read] += _SHARE * (found - every[read])

    def of(self, words: list[NDArray[np.int64]]) -> NDArray[np.float64]:
        """Mean cost of each text's frames; above 0."""
        starts = np.cumsum([0, *(len(said) for said in words[:-1])])
        costs = np.add.reduceat(self._all()[np.concatenate(words)], starts)
        return costs / [len(said) for said in words] + 1e-3
