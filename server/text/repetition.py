"""Measures how much of a text repeats itself, so that speech which does the same is not taken for a fault."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST_PERIOD = 8
"""Words after which a repetition is still looked for: a refrain of a few words, a number of some digits."""


def repeated(words: Sequence[str]) -> int:
    """Find the longest run of words that each equal the word some fixed distance before; return its length."""
    return max((_longest_run(words, period) for period in range(1, LONGEST_PERIOD + 1)), default=0)


def _longest_run(words: Sequence[str], period: int) -> int:
    longest = run = 0
    for before, word in zip(words, words[period:], strict=False):
        run = run + 1 if word == before else 0
        longest = max(longest, run)
    return longest
