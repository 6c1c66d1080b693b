"""Finds where a text may be cut: after paragraphs, sentences and clauses, from left to right as they are asked for.

It is cut where it stands; `server.text.lines` has said before which line breaks are the ends of paragraphs.

Sentences are `sentencex`'s, which knows abbreviations and quotation marks of every language that the models speak;
`server.text.abbreviations` has more of them. It is given a bounded window at a time, because its time grows with the
square of what it is given at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import regex
import sentencex

from server.text.abbreviations import BEFORE, BEHIND
from server.text.matching import matches
from server.text.speakable import is_speakable


class Boundary(IntEnum):
    """What ends at a cut, in order of strength."""

    CHARACTER = 0
    WORD = 1
    DOUBTFUL = 2
    """What may be a sentence, or one of its initials or ordinals."""
    CLAUSE = 3
    SENTENCE = 4
    PARAGRAPH = 5
    TEXT = 6


class Cut(NamedTuple):
    """A place between two characters; white space around it belongs to what follows."""

    offset: int
    boundary: Boundary


WINDOW = 2000
"""Characters that the segmenter gets at once; it finds no longer sentence."""

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}"
"""Scripts without spaces between words, as the inside of a character class."""

_LETTER = rf"[\p{{L}}\p{{M}}\p{{N}}--[{UNSPACED}]]"
_JOINERS = r"[.,:;'’/_@&%+\-．，：]"
_WORD_GOES_ON = regex.compile(rf"{_JOINERS}*+{_LETTER}", regex.V1)
_WORD_BEFORE = regex.compile(rf"{_LETTER}{_JOINERS}*+\Z", regex.V1)
_LOOK_BACK = 8
_LONGEST_NAME = 40

_CLOSING = r"[\p{Pe}\p{Pf}\"']*+"
_CLAUSE = regex.compile(rf"(?:[,;:،؛](?=[\s\p{{Pe}}\p{{Pf}}\"'])|[，、；：…—]+|(?<=\S )[–-](?= )){_CLOSING}", regex.V1)

_ORDINAL = regex.compile(r"(?<![\p{L}\p{N}])\p{Nd}{1,3}\.\s*\Z")
_ORDINALS_WITH_A_PERIOD = frozenset(
    ("bs", "cs", "da", "de", "et", "fi", "hr", "hu", "is", "lv", "nb", "nn", "no", "pl", "sk", "sl", "sr", "tr")
)
"""Languages, by ISO 639-1 code, that write 2. for second."""
_INITIAL = regex.compile(r"(?<![\p{L}\p{N}])(\p{Lu})\.\s*\Z")
_TITLES = {"fr": "M", "es": "D", "pt": "D"}
"""Titles of one letter: Monsieur, Don, Dom or Dona."""
_NAME = regex.compile(r"[\p{Pi}\p{Ps}\"']?\p{Lu}")
_WORD_BEFORE_INITIAL = regex.compile(r"(\p{Lu}?)[\p{L}\p{M}'’-]*+[.]? \p{Lu}\.\s*\Z")
_LAST_WORD = regex.compile(r"(?<![\p{L}\p{N}.])((?:\p{L}+\.)*\p{L}+)\.\s*\Z")
_GOES_ON = regex.compile(r"[\p{Ll}\p{Nd}]")
_NUMBER_OR_LETTER = regex.compile(r"\s*[\p{Pi}\p{Ps}\"']*+(?:\p{Nd}{1,3}|\p{Lu})\.\s*\Z")

_TAIL = 300
"""Characters of a text by which its last sentence is known."""
PROBE = " Smith"
"""What may follow a sentence as well as a title: with it a full stop ends a sentence or it does not."""

_CLUSTER = regex.compile(r"\X")
_BLANKS = regex.compile(r"\s+")
_LETTERS_OF = (
    ("ko", regex.compile(r"\p{Hangul}")),
    ("ja", regex.compile(r"[\p{Hiragana}\p{Katakana}]")),
    ("zh", regex.compile(r"\p{Han}")),
    ("ru", regex.compile(r"\p{Cyrillic}")),
    ("de", regex.compile(r"ß|(?<!\p{L})(?:der|und|ist|nicht|eine[rmns]?)(?!\p{L})")),
)


def cuts(text: str, language: str | None) -> Iterator[Cut]:
    """The places at which a text may be cut without being spoken wrongly, in order; the last one is the text's end.

    Never inside a word, a number or a grapheme cluster.

    Args:
        text: with some character that is no white space.
        language: ISO 639-1 code; None goes by the script.
    """
    clusters = matches(_CLUSTER, text)
    whole = 0
    done = 0
    for cut in _clauses_and_sentences(text, language):
        while whole < cut.offset:
            whole = next(clusters).end()
        if done < cut.offset == whole and not inside_word(text, cut.offset):
            done = cut.offset
            yield cut


def ends_whole(text: str, language: str | None) -> bool:
    """Whether a text ends with a sentence, and not with an abbreviation or in the middle of one.

    Args:
        text: of which the last `_TAIL` characters count.
        language: ISO 639-1 code; None goes by the script.
    """
    tail = text[-_TAIL:].rstrip()
    return is_speakable(tail) and any(
        cut.offset == len(tail) and cut.boundary >= Boundary.SENTENCE for cut in cuts(tail + PROBE, language)
    )


def inside_word(text: str, offset: int) -> bool:
    """Whether a word or number goes on at an offset, such as that of `3.14`, `10:30`, `U.S.` or `example.com`."""
    if not _WORD_GOES_ON.match(text, offset):
        return False
    return _WORD_BEFORE.search(text, max(0, offset - _LOOK_BACK), offset) is not None


def _clauses_and_sentences(text: str, language: str | None) -> Iterator[Cut]:
    start = 0
    for cut in _sentences(text, language):
        for clause in matches(_CLAUSE, text, start, cut.offset):
            if clause.end() < cut.offset:
                yield Cut(clause.end(), Boundary.CLAUSE)
        yield cut
        start = cut.offset


def _sentences(text: str, language: str | None) -> Iterator[Cut]:
    start = 0
    for block in _blocks(text):
        for end in _sentence_ends(text, start, block.offset, language):
            if end.offset < block.offset:
                yield end
        yield block
        start = block.offset


def _blocks(text: str) -> Iterator[Cut]:
    """Ends of paragraphs, which a blank line parts; a single line break is a blank as any other."""
    last = len(text.rstrip())
    for blanks in matches(_BLANKS, text, len(text) - len(text.lstrip()), last):
        if len(f"{blanks[0]}.".splitlines()) > 2:
            yield Cut(blanks.start(), Boundary.PARAGRAPH)
    yield Cut(last, Boundary.TEXT)


def _sentence_ends(text: str, start: int, end: int, language: str | None) -> Iterator[Cut]:
    while start < end:
        stop = min(start + WINDOW, end)
        window = _BLANKS.sub(lambda blanks: " " * len(blanks[0]), text[start:stop])
        known = language or _guess(window)
        pieces = sentencex.segment(known, window)
        if stop < end:
            pieces = pieces[:-1]  # it may go on beyond the window
        place = start
        for piece in pieces:
            place += len(piece)
            boundary = _kind_of_end(piece, text[place : place + _LOOK_BACK].lstrip(), known)
            if boundary is not None:
                yield Cut(place - (len(piece) - len(piece.rstrip())), boundary)
        start = place if pieces else stop


def _kind_of_end(piece: str, following: str, language: str) -> Boundary | None:
    """What the end is that the segmenter has found: it takes initials, ordinals and some abbreviations for sentences.

    Args:
        piece: with the white space behind it.
        following: the beginning of what comes next.
        language: whose rules hold.
    """
    if _NUMBER_OR_LETTER.match(piece):
        return None
    if (word := _LAST_WORD.search(piece, max(0, len(piece) - _LONGEST_NAME))) and (
        word[1] in BEFORE.get(language, ()) or (word[1] in BEHIND.get(language, ()) and _GOES_ON.match(following))
    ):
        return None
    if _ORDINAL.search(piece):
        return Boundary.DOUBTFUL if language in _ORDINALS_WITH_A_PERIOD else Boundary.SENTENCE
    initial = _INITIAL.search(piece)
    if not initial or not _NAME.match(following):
        return Boundary.SENTENCE
    if _TITLES.get(language) == initial[1]:
        return None
    before = _WORD_BEFORE_INITIAL.search(piece, max(0, initial.start() - _LONGEST_NAME))
    return Boundary.DOUBTFUL if before and before[1] else Boundary.SENTENCE


def _guess(text: str) -> str:
    """A language whose rules suit the script of a text."""
    return next((code for code, letters in _LETTERS_OF if letters.search(text)), "en")
