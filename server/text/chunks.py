"""A long text as chunks that are spoken one by one, side by side: cut where a reader pauses, alike in tokens."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import regex

from server.text.sentences import UNSPACED, Boundary, cuts, inside_word

CountTokens = Callable[[str], int]

MAX_TOKENS = 120
"""Most tokens of a chunk, about 40 s of speech at 3 to 5 codec frames a token: much longer generations drift in voice
and pace and may lose their way. A text of no more than this is spoken whole."""

GOAL_TOKENS = 80
"""What chunks aim at while the text's end is not in sight: few enough to end with a sentence before `MAX_TOKENS`."""

FIRST_TOKENS = 24
"""What the first chunk of several aims at: a short prompt is soon prefilled, and 6 to 8 s of audio are a start."""

MIN_TOKENS = 10
"""A chunk of fewer sounds cut off: the model speaks words without their sentence as if they stood alone."""

_COST = {
    Boundary.CHARACTER: 11.0,
    Boundary.WORD: 10.0,
    Boundary.CLAUSE: 1.5,
    Boundary.SENTENCE: 0.25,
    Boundary.PARAGRAPH: 0.0,
    Boundary.TEXT: 0.0,
}
"""What ending a chunk here costs; being off the aimed size by so many times that size costs the same."""

_BLANKS = re.compile(r"\s+")
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
        text: without white space at its ends, but exactly as given if it is the whole text.
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


def chunks(text: str, language: str | None, count_tokens: CountTokens) -> Iterator[Chunk]:
    """Cut a text into chunks, lazily: the first one costs no more than the sentences it is chosen from.

    Joined, they are the text up to white space. A chunk has at most `MAX_TOKENS` tokens by the sum of its parts. A word
    or number of more than that is none that anybody says, and is cut too; a grapheme cluster never is.

    Args:
        text: with some character that is no white space.
        language: ISO 639-1 code; None goes by the script.
        count_tokens: of a piece of text.
    """
    pieces = _pieces(text, language, count_tokens)
    pending: deque[_Piece] = deque()
    tokens = start = 0
    goal = FIRST_TOKENS
    more = True
    while True:
        while more and tokens <= 2 * MAX_TOKENS:
            piece = next(pieces)
            pending.append(piece)
            tokens += piece.tokens
            more = piece.boundary != Boundary.TEXT
        if not more and (tokens <= MAX_TOKENS or len(pending) == 1):
            yield Chunk(text[start:].strip() if start else text, tokens, Boundary.TEXT)
            return
        if start:
            goal = GOAL_TOKENS if more else tokens // -(-tokens // MAX_TOKENS)
        taken = [pending.popleft() for _ in range(_choose(pending, goal, tokens))]
        size = sum(piece.tokens for piece in taken)
        yield Chunk(text[start : taken[-1].end].strip(), size, taken[-1].boundary)
        start, tokens = taken[-1].end, tokens - size


def _choose(pending: deque[_Piece], goal: int, tokens: int) -> int:
    """How many pieces to take: those that end best, not too few for a chunk nor for the one that follows."""
    sizes = list(accumulate(piece.tokens for piece in pending))
    fitting = [i for i, size in enumerate(sizes) if size <= MAX_TOKENS] or [0]
    good = [i for i in fitting if MIN_TOKENS <= sizes[i] <= tokens - MIN_TOKENS]
    return 1 + min(good or fitting, key=lambda i: abs(sizes[i] - goal) / goal + _COST[pending[i].boundary])


def _pieces(text: str, language: str | None, count_tokens: CountTokens) -> Iterator[_Piece]:
    start = 0
    for end, boundary in cuts(text, language):
        yield from _small_enough(text, start, end, boundary, count_tokens, _FINER)
        start = end


def _small_enough(
    text: str, start: int, end: int, boundary: Boundary, count_tokens: CountTokens, finer: tuple[Finer, ...]
) -> Iterator[_Piece]:
    """One piece, or several where it is so large that no cut would be near enough."""
    if blanks := _BLANKS.match(text, start, end):
        start = blanks.end()  # else white space that fills a chunk would be one
    tokens = count_tokens(text[start:end])
    if tokens <= MAX_TOKENS - MIN_TOKENS or not finer:
        yield _Piece(end, tokens, boundary)
        return
    (inner, find), *rest = finer
    ends = [place for place in find(text, start, end) if start < place < end]
    for place in ends:
        yield from _small_enough(text, start, place, inner, count_tokens, tuple(rest))
        start = place
    yield from _small_enough(text, start, end, boundary, count_tokens, tuple(rest))


def _spaces(text: str, start: int, end: int) -> Iterator[int]:
    return (blanks.start() for blanks in _BLANKS.finditer(text, start, end))


def _characters(text: str, start: int, end: int) -> Iterator[int]:
    return (place.start() for place in _BETWEEN_CHARACTERS.finditer(text, start, end))


def _clusters(text: str, start: int, end: int) -> Iterator[int]:
    return (cluster.end() for cluster in _CLUSTER.finditer(text, start, end))


def _words(text: str, start: int, end: int) -> Iterator[int]:
    return (place for place in _clusters(text, start, end) if not inside_word(text, place))


_FINER: tuple[Finer, ...] = (
    (Boundary.WORD, _spaces),
    (Boundary.CHARACTER, _characters),
    (Boundary.CHARACTER, _words),
    (Boundary.CHARACTER, _clusters),
)
"""Where a piece that is too large is cut: at the places of the first, then what is still too large at the second's."""
