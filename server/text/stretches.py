"""Cuts a long text into stretches, each of which is looked at by itself.

A regular expression holds the interpreter's lock until it has gone through its text, so that dozens of them over
100,000 characters would hold up the event loop and the engine for up to 60 ms each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from server.text.lines import PARAGRAPH
from server.text.sentences import ends_whole

STRETCH_CHARS = 5000
"""The longest stretch, in characters: more than people write in a paragraph."""
_SENTENCE_END = re.compile(r"(?<![A-Za-z.])[a-z]{2,}[.!?][\"')]*(?= [A-Z])")
"""A word with a capital may be a title, such as `Mrs.`, which is read with the name behind it."""
_BETWEEN_WORDS = re.compile(r"(?<![^ ])[a-z]{2,}(?= [a-z]{2,}\b)")
"""Between two plain words: behind an abbreviation or a number comes what is read with it."""
MOST_ENDS = 16
"""Of those that look like sentence ends so many are asked about: whether each is one takes 0.15 ms."""


def stretches(text: str, language: str | None = None) -> Iterator[tuple[str, str]]:
    """Yield the stretches of a text, and the white space between each and the next; joined they are the text.

    A stretch ends with a paragraph; where a paragraph is too long for that, with a sentence; where no sentence ends,
    between two words, plain ones if there are any; and where there are no words, anywhere.

    Args:
        text: of any length.
        language: ISO 639-1 code, by whose abbreviations sentences are known; None goes by the script.
    """
    start = 0
    while len(text) - start > STRETCH_CHARS:
        end = _end(text, start, start + STRETCH_CHARS, language)
        begin = end
        while begin < len(text) and text[begin].isspace():
            begin += 1
        yield text[start:end], text[end:begin]
        start = begin
    yield text[start:], ""


def by_stretch(change: Callable[[str], str], text: str) -> str:
    """Change each stretch of a text by itself."""
    return "".join(change(stretch) + blank for stretch, blank in stretches(text))


def _end(text: str, start: int, stop: int, language: str | None) -> int:
    if (paragraph := text.rfind(PARAGRAPH, start, stop)) > start:
        return paragraph
    ends = [found.end() for found in _SENTENCE_END.finditer(text, start, stop)]
    for end in reversed(ends[-MOST_ENDS:]):
        if ends_whole(text[start:end], language):
            return end
    words = max((found.end() for found in _BETWEEN_WORDS.finditer(text, start, stop)), default=-1)
    blank = text.rfind(" ", start, stop)
    return next((end for end in (words, blank) if end > start), stop)
