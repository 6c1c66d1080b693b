"""Sets of words, written as a text."""

from __future__ import annotations


def word_set(spaced: str) -> frozenset[str]:
    """The words between blanks."""
    return frozenset(spaced.split())
