"""Tells whether a text holds anything to say, and in which scripts it is written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import regex

from server.text.matching import found_in, matches

_SPEAKABLE = regex.compile(r"[[\p{L}\p{N}]--\p{Default_Ignorable_Code_Point}]", regex.V1)
_LAST_SPEAKABLE = regex.compile(_SPEAKABLE.pattern, regex.V1 | regex.REVERSE)
_LETTER = regex.compile(r"\p{L}")

_SCRIPTS: dict[str, tuple[str, ...]] = {
    "chinese": ("Han", "Bopomofo"),
    "japanese": ("Han", "Hiragana", "Katakana"),
    "korean": ("Hangul", "Han"),
    "russian": ("Cyrillic",),
    "english": (),
    "german": (),
    "french": (),
    "portuguese": (),
    "spanish": (),
    "italian": (),
}
"""Scripts of Qwen3-TTS's languages, by its names of them, beside Latin, which all of them use."""

_DIALECT = "_dialect"
"""The end of the names of Chinese dialects."""

MOST_FOREIGN = 0.5
"""A text is refused if a larger share of its letters is in scripts of no language of the model."""


class Letters(NamedTuple):
    """Numbers of all letters of a text, and of letters in scripts that none of a model's languages uses."""

    all: int
    foreign: int

    @property
    def unreadable(self) -> bool:
        """Whether too many of the letters are foreign."""
        return self.foreign > MOST_FOREIGN * self.all


def is_speakable(text: str) -> bool:
    """Whether a text has a letter or a digit; marks, emoji and invisible fillers alone say nothing."""
    return found_in(_SPEAKABLE, text)


def speakable_end(text: str) -> int:
    """Where the last letter or digit of a text ends; 0 if it has none."""
    found = _LAST_SPEAKABLE.search(text, concurrent=True)
    return found.end() if found else 0


def letters(text: str, languages: Iterable[str]) -> Letters:
    """Count the letters of a text, and those in scripts of no language.

    Args:
        text: as it is read.
        languages: names in the model's spelling. If one of them is unknown here, or there are none, no letter is
            foreign.
    """
    names = {"chinese" if name.endswith(_DIALECT) else name for name in map(str.lower, languages)}
    total = sum(1 for _ in matches(_LETTER, text))
    if not names or not names <= _SCRIPTS.keys():
        return Letters(total, 0)
    known = {"Latin", "Common", "Inherited", *(script for name in names for script in _SCRIPTS[name])}
    written = "".join(rf"\p{{{script}}}" for script in sorted(known))
    foreign = regex.compile(rf"[\p{{L}}--[{written}]]", regex.V1)
    return Letters(total, sum(1 for _ in matches(foreign, text)))
