"""Where a text may be cut: after paragraphs, sentences and clauses, found from left to right as they are asked for.

Sentences are `sentencex`'s, which knows the abbreviations and quotation marks of every language that the models speak.
It is given a bounded window at a time, because its time grows with the square of what it is given at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import regex
import sentencex


class Boundary(IntEnum):
    """What ends at a cut, the weakest first."""

    CHARACTER = 0
    WORD = 1
    CLAUSE = 2
    SENTENCE = 3
    PARAGRAPH = 4
    TEXT = 5


class Cut(NamedTuple):
    """A place between two characters; white space around it belongs to what follows."""

    offset: int
    boundary: Boundary


WINDOW = 2000
"""Characters given to the segmenter at once; a sentence that is longer than that is no sentence to it."""

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}"
"""Scripts that put no space between words, as the inside of a character class."""

_LETTER = rf"[\p{{L}}\p{{M}}\p{{N}}--[{UNSPACED}]]"
_JOINERS = r"[.,:;'’/_@&%+\-．，：]"
_WORD_GOES_ON = regex.compile(rf"{_JOINERS}*+{_LETTER}", regex.V1)
_WORD_BEFORE = regex.compile(rf"{_LETTER}{_JOINERS}*+\Z", regex.V1)
_LOOK_BACK = 8

_CLOSING = r"[\p{Pe}\p{Pf}\"']*+"
_CLAUSE = regex.compile(rf"(?:[,;:،؛](?=[\s\p{{Pe}}\p{{Pf}}\"'])|[，、；：…—]+|(?<=\S )[–-](?= )){_CLOSING}", regex.V1)
_SENTENCE_END = regex.compile(rf"[\p{{Sentence_Terminal}}…]{_CLOSING}\Z", regex.V1)
_INITIAL_OR_ORDINAL = regex.compile(r"(?<![\p{L}\p{N}])(?:\p{Lu}|\p{Nd}{1,2})\.\s*\Z")
"""`M.` of M. Dupont and `2.` of 2. Auflage: a pause after those is worse than none after a sentence."""

_CLUSTER = regex.compile(r"\X")
_BLANKS = re.compile(r"\s+")
_LETTERS_OF = (
    ("ko", regex.compile(r"\p{Hangul}")),
    ("ja", regex.compile(r"[\p{Hiragana}\p{Katakana}]")),
    ("zh", regex.compile(r"\p{Han}")),
    ("ru", regex.compile(r"\p{Cyrillic}")),
)


def cuts(text: str, language: str | None) -> Iterator[Cut]:
    """The places at which a text may be cut without being spoken wrongly, in order; the last one is the text's end.

    Never inside a word, a number or a grapheme cluster.

    Args:
        text: with some character that is no white space.
        language: ISO 639-1 code; None goes by the script.
    """
    clusters = _CLUSTER.finditer(text)
    whole = 0
    done = 0
    for cut in _clauses_and_sentences(text, language):
        while whole < cut.offset:
            whole = next(clusters).end()
        if done < cut.offset == whole and not inside_word(text, cut.offset):
            done = cut.offset
            yield cut


def inside_word(text: str, offset: int) -> bool:
    """Whether a word or number goes on at an offset, such as that of `3.14`, `10:30`, `U.S.` or `example.com`."""
    if not _WORD_GOES_ON.match(text, offset):
        return False
    return _WORD_BEFORE.search(text, max(0, offset - _LOOK_BACK), offset) is not None


def _clauses_and_sentences(text: str, language: str | None) -> Iterator[Cut]:
    start = 0
    for cut in _sentences(text, language):
        for clause in _CLAUSE.finditer(text, start, cut.offset):
            if clause.end() < cut.offset:
                yield Cut(clause.end(), Boundary.CLAUSE)
        yield cut
        start = cut.offset


def _sentences(text: str, language: str | None) -> Iterator[Cut]:
    start = 0
    for block in _blocks(text):
        for end in _sentence_ends(text, start, block.offset, language):
            if end < block.offset:
                yield Cut(end, Boundary.SENTENCE)
        yield block
        start = block.offset


def _blocks(text: str) -> Iterator[Cut]:
    """Ends of paragraphs and of lines.

    A blank line ends a paragraph, and so does the end of a line that ends a sentence. The end of any other line ends a
    sentence, as that of a headline or an item does, unless the text goes on in lower case: then it is merely wrapped.
    """
    last = len(text.rstrip())
    for blanks in _BLANKS.finditer(text, len(text) - len(text.lstrip()), last):
        breaks = len(f"{blanks[0]}.".splitlines()) - 1
        if not breaks:
            continue
        before = text[max(0, blanks.start() - _LOOK_BACK) : blanks.start()]
        if breaks > 1 or _SENTENCE_END.search(before):
            yield Cut(blanks.start(), Boundary.PARAGRAPH)
        elif not text[blanks.end()].islower():
            yield Cut(blanks.start(), Boundary.SENTENCE)
    yield Cut(last, Boundary.TEXT)


def _sentence_ends(text: str, start: int, end: int, language: str | None) -> Iterator[int]:
    while start < end:
        stop = min(start + WINDOW, end)
        window = _BLANKS.sub(lambda blanks: " " * len(blanks[0]), text[start:stop])
        pieces = sentencex.segment(language or _guess(window), window)
        if stop < end:
            pieces = pieces[:-1]  # it may go on beyond the window
        place = start
        for piece in pieces:
            place += len(piece)
            if not _INITIAL_OR_ORDINAL.search(piece):
                yield place - (len(piece) - len(piece.rstrip()))
        start = place if pieces else stop


def _guess(text: str) -> str:
    """A language whose rules suit the script of a text."""
    return next((code for code, letters in _LETTERS_OF if letters.search(text)), "en")
