"""Cuts a long text into chunks of about the same number of tokens, where a reader pauses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import regex

from server.text.matching import matches
from server.text.sentences import UNSPACED, Boundary, Cut, cuts, inside_word
from server.text.speakable import is_speakable, speakable_end

CountTokens = Callable[[str], int]

MAX_TOKENS = 120
"""The most tokens of a chunk, about 40 s of speech at 3 to 5 codec frames a token: in much longer speech voice and pace
drift. A paragraph of no more tokens is spoken whole."""

GOAL_TOKENS = 80
"""The tokens that chunks aim at while the text goes on, so that a sentence ends before `MAX_TOKENS`."""

FIRST_TOKENS = 24
"""The tokens that the first of several chunks aims at: it is prefilled soon, and gives 6 to 8 s of audio."""

MIN_TOKENS = 10
"""The fewest tokens of a part of a paragraph: the model speaks fewer words as if they stood alone. A whole paragraph
may have fewer tokens; together with others in one chunk the model often ends after the first of them."""

_COST = {
    Boundary.CHARACTER: 11.0,
    Boundary.WORD: 10.0,
    Boundary.DOUBTFUL: 3.0,
    Boundary.CLAUSE: 1.5,
    Boundary.SENTENCE: 0.25,
    Boundary.PARAGRAPH: 0.0,
    Boundary.TEXT: 0.0,
}
"""What ending a chunk here costs; being off the aimed size by so many times that size costs the same."""

_BLANKS = regex.compile(r"\s+")
_NUMERALS = "〇零一二两三四五六七八九十百千万萬亿億兆"
_BETWEEN_CHARACTERS = regex.compile(
    rf"(?<=[{UNSPACED}])(?=[{UNSPACED}])(?![ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶ々〻ゝゞヽヾ])"
    rf"(?<!\p{{Katakana}}(?=\p{{Katakana}}))(?<![{_NUMERALS}](?=[{_NUMERALS}]))",
    regex.V1,
)
"""Between two characters of a script without spaces, where neither a syllable, a foreign word nor a number goes on."""
_CLUSTER = regex.compile(r"\X")

Finer = tuple[Boundary, Callable[[str, int, int], Iterator[int]]]


@dataclass(frozen=True)
class Chunk:
    """A part of a text that is spoken at once.

    Attributes:
        text: without white space at its ends.
        tokens: about how many tokens it has.
        boundary: what ends with it; `TEXT` marks the last chunk.
    """

    text: str
    tokens: int
    boundary: Boundary


@dataclass(frozen=True)
class _Piece:
    """What lies between two cuts."""

    end: int
    tokens: int
    boundary: Boundary


def chunks(
    text: str,
    language: str | None,
    count_tokens: CountTokens,
    most: int = MAX_TOKENS,
    *,
    last: Boundary = Boundary.PARAGRAPH,
) -> Iterator[Chunk]:
    """Cut a text into chunks, lazily: the first one costs no more than the sentences it is chosen from.

    Joined, they are the text up to white space. What ends with `last` ends a chunk, but for sentences of marks alone. A
    chunk has at most `most` tokens by the sum of its parts. A word or number of more than that is none that anybody
    says, and is cut too; a grapheme cluster never is.

    Args:
        text: with some character that is no white space.
        language: ISO 639-1 code; None goes by the script.
        count_tokens: of a piece of text.
        most: tokens of a chunk.
        last: the weakest boundary behind which a chunk never goes on: `PARAGRAPH`, or `SENTENCE`.
    """
    least = min(MIN_TOKENS, most // 4)
    pieces = _pieces(text, _cuts(text, language, last), count_tokens, most - least)
    pending: deque[_Piece] = deque()
    tokens = start = 0
    while True:
        while tokens <= 2 * most and not (pending and pending[-1].boundary >= last):
            piece = next(pieces)
            pending.append(piece)
            tokens += piece.tokens
        whole = pending[-1].boundary >= last
        if whole and (tokens <= most or len(pending) == 1):
            count = len(pending)
        else:
            goal = GOAL_TOKENS if start else FIRST_TOKENS
            if start and whole:
                goal = tokens // -(-tokens // most)
            count = _choose(pending, min(goal, most), tokens, least, most)
        taken = [pending.popleft() for _ in range(count)]
        size, end = sum(piece.tokens for piece in taken), taken[-1]
        yield Chunk(text[start : end.end].strip(), size, end.boundary)
        if end.boundary is Boundary.TEXT:
            return
        start, tokens = end.end, tokens - size


def _choose(pending: deque[_Piece], goal: int, tokens: int, least: int, most: int) -> int:
    """Choose how many pieces make a chunk, by where they end, so that neither it nor the next one becomes too small."""
    sizes = list(accumulate(piece.tokens for piece in pending))
    fitting = [i for i, size in enumerate(sizes) if size <= most] or [0]
    good = [i for i in fitting if least <= sizes[i] <= tokens - least]
    return 1 + min(good or fitting, key=lambda i: abs(sizes[i] - goal) / goal + _COST[pending[i].boundary])


def _cuts(text: str, language: str | None, last: Boundary) -> Iterator[Cut]:
    """The places where the text may be cut; the end of a sentence that says nothing counts as that of a clause.

    So does the last sentence of those that say something, if marks alone follow it.
    """
    start = 0
    end = 0 if last is Boundary.PARAGRAPH else speakable_end(text)
    for cut in cuts(text, language):
        if cut.boundary is not Boundary.SENTENCE or last is Boundary.PARAGRAPH:
            yield cut
        elif cut.offset < end and is_speakable(text[start : cut.offset]):
            start = cut.offset
            yield cut
        else:
            yield Cut(cut.offset, Boundary.CLAUSE)


def _pieces(text: str, places: Iterator[Cut], count_tokens: CountTokens, most: int) -> Iterator[_Piece]:
    def small_enough(start: int, end: int, boundary: Boundary, finer: tuple[Finer, ...]) -> Iterator[_Piece]:
        """Yield the piece, or several pieces if it is too large."""
        said = text[start:end].lstrip()  # else white space that fills a chunk would be one
        # The blank before a word is a part of its token: what is counted is what is sent.
        tokens = count_tokens(f" {said}" if start and len(said) < end - start else said)
        if tokens <= most or not finer:
            yield _Piece(end, tokens, boundary)
            return
        start = first = end - len(said)
        (inner, find), *rest = finer
        for place in (place for place in find(text, first, end) if first < place < end):
            yield from small_enough(start, place, inner, tuple(rest))
            start = place
        yield from small_enough(start, end, boundary, tuple(rest))

    start = 0
    for end, boundary in places:
        yield from small_enough(start, end, boundary, _FINER)
        start = end


def _spaces(text: str, start: int, end: int) -> Iterator[int]:
    return (blanks.start() for blanks in matches(_BLANKS, text, start, end))


def _characters(text: str, start: int, end: int) -> Iterator[int]:
    return (place.start() for place in matches(_BETWEEN_CHARACTERS, text, start, end))


def _clusters(text: str, start: int, end: int) -> Iterator[int]:
    return (cluster.end() for cluster in matches(_CLUSTER, text, start, end))


def _words(text: str, start: int, end: int) -> Iterator[int]:
    return (place for place in _clusters(text, start, end) if not inside_word(text, place))


_FINER: tuple[Finer, ...] = (
    (Boundary.WORD, _spaces),
    (Boundary.CHARACTER, _characters),
    (Boundary.CHARACTER, _words),
    (Boundary.CHARACTER, _clusters),
)
"""Where a piece that is too large is cut; each further entry cuts what is still too large."""
