"""Finds where what is said stands in the text that was written, though numbers, marks and blanks have become others.

Words that both texts have are matched as in Bram Cohen's patience diff (https://bramcohen.livejournal.com/73318.html):
words that stand once in each are anchors as far as their order is the same, and what lies between two anchors is
matched in the same way. Where there is no such word, the nearest two words in a row that both have are taken. A place
between two matched words that are not neighbours is an estimate.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, zip_longest

import regex

from server.text import matching
from server.text.sentences import UNSPACED
from server.text.tags import TAG

_TOKEN = regex.compile(
    rf"[{UNSPACED}]|[\p{{L}}\p{{M}}\p{{N}}--[{UNSPACED}]]+"
    rf"|(?P<mark>[\p{{Sentence_Terminal}}…]+)|(?P<tags>{TAG}(?:\s*+{TAG})*+)",
    regex.V1,
)
"""A word, a character of a script that puts no space between words, the marks that end a sentence, or tags."""
_STOP = regex.compile(
    r"(?P<mark>[\p{Sentence_Terminal}…]++[\p{Pe}\p{Pf}\"'*_]*+)|(?P<lines>[^\S\n]*+\n[^\S\n]*+\n\s*+)"
    rf"|(?P<blank>[\s{TAG}]++)"
)
"""Where a part of a text may end: behind a sentence's last mark, at a blank line, and before other white space."""

MOST_ROUNDS = 20
"""How often what lies between anchors is matched anew; texts that people write need two or three rounds."""
MOST_SKIPPED = 60
"""Words of either text behind which a match is looked for where no word stands once; as many may be one number."""
LOOKED_AT = 100
"""Stops on either side of an estimated place among which the best one is chosen."""
FAR = 60
"""Characters from the estimate at which the distance costs 1; in a gap that is shorter, its whole length does."""
_COST = {"lines": 0.0, "mark": 0.1, "blank": 0.4, "anywhere": 1.5}
"""What it costs that a part ends at such a place."""


class Alignment:
    """Where each place of what is said stands in what is written.

    It takes time that grows with the length of the texts, times the logarithm of it.

    Args:
        said: what is said, with `TAG` between what tags keep apart.
        written: the text that it was made of, in the same order, with `TAG` for each tag.
    """

    def __init__(self, said: str, written: str) -> None:
        of_said, of_written = _Tokens(said), _Tokens(written)
        pairs = matches(of_said.words, of_written.words)
        self._starts, self._ends = of_said.spans(i for i, _ in pairs)
        self._place_starts, self._place_ends = of_written.spans(j for _, j in pairs)
        self._written, self._said_length = written, len(said)
        unmatched = range(pairs[-1][0] + 1 if pairs else 0, len(of_said.words))
        self._all_said = next(
            (of_said.ends[i] for i in reversed(unmatched) if of_said.words[i] != _MARK), len(said) + 1
        )
        """Where the last word that is said ends, if what is written ends with others instead; else beyond the text."""
        self._gap: tuple[int, int] | None = None
        self._stops: list[tuple[int, float]] = []

    def place(self, offset: int) -> int:
        """The offset in what is written of a place between two characters of what is said."""
        if not offset:
            return 0
        if offset >= self._all_said:
            return len(self._written)
        after = bisect_left(self._starts, offset)
        begin, start = (self._ends[after - 1], self._place_ends[after - 1]) if after else (0, 0)
        end, stop = self._said_length, len(self._written)
        if after < len(self._starts):
            end, stop = self._starts[after], self._place_starts[after]
        share = (offset - begin) / (end - begin) if begin < end else 0.0
        return self._nearest_stop(start, stop, start + min(max(share, 0.0), 1.0) * (stop - start))

    def _nearest_stop(self, start: int, stop: int, estimate: float) -> int:
        if self._gap != (start, stop):
            self._gap, self._stops = (start, stop), [*self._find_stops(start, stop)]
        middle = bisect_right(self._stops, (round(estimate), 0.0))
        near = self._stops[max(0, middle - LOOKED_AT) : middle + LOOKED_AT]
        unit = max(1, min(stop - start, FAR))
        return min(near, key=lambda found: found[1] + abs(found[0] - estimate) / unit)[0]

    def _find_stops(self, start: int, stop: int) -> list[tuple[int, float]]:
        """Places from `start` to `stop` where a part of the text may end, with their costs, in order."""
        stops = {start: _COST["anywhere"], stop: _COST["anywhere"]}
        for found in matching.matches(_STOP, self._written, start, stop):
            kind = found.lastgroup or "anywhere"
            place = found.end() if kind == "mark" else found.start()
            stops[place] = min(_COST[kind], stops.get(place, _COST["anywhere"]))
        return sorted(stops.items())


_MARK = "."
"""What marks that end a sentence are compared by."""


class _Tokens:
    """The tokens of a text, in little memory: a text of 100,000 characters may have as many.

    Attributes:
        words: what each is compared by; equal ones are one object.
        starts, ends: where it begins and ends in the text.
    """

    def __init__(self, text: str) -> None:
        self.words: list[str] = []
        self.starts, self.ends = array("L"), array("L")
        known: dict[str, str] = {}
        for token in matching.matches(_TOKEN, text):
            word = _word(token)
            self.words.append(known.setdefault(word, word))
            self.starts.append(token.start())
            self.ends.append(token.end())

    def spans(self, tokens: Iterable[int]) -> tuple[array[int], array[int]]:
        """Where some tokens, given by their numbers, begin, and where they end."""
        numbers = array("L", tokens)
        return array("L", (self.starts[i] for i in numbers)), array("L", (self.ends[i] for i in numbers))


def _word(token: regex.Match[str]) -> str:
    """What a token is compared by: a sentence's end may be marked in another way, and a word begin with a capital."""
    return _MARK if token["mark"] else TAG if token["tags"] else token[0].casefold()


def matches(said: Sequence[str], written: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of indices at which two lists have the same word; both indices rise from pair to pair."""
    found: list[tuple[int, int]] = []
    todo = [(0, len(said), 0, len(written), MOST_ROUNDS)]
    while todo:
        i, i_end, j, j_end, rounds = todo.pop()
        while i < i_end and j < j_end and said[i] == written[j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        while i < i_end and j < j_end and said[i_end - 1] == written[j_end - 1]:
            i_end, j_end = i_end - 1, j_end - 1
            found.append((i_end, j_end))
        anchors = _anchors(said, range(i, i_end), written, range(j, j_end)) if rounds else []
        for anchor in anchors:
            todo.append((i, anchor[0], j, anchor[1], rounds - 1))
            i, j = anchor[0] + 1, anchor[1] + 1
        if anchors:
            todo.append((i, i_end, j, j_end, rounds - 1))
            found += anchors
        else:
            found += _runs(said, range(i, i_end), written, range(j, j_end))
    return sorted(found)


def _runs(said: Sequence[str], places: range, written: Sequence[str], others: range) -> Iterator[tuple[int, int]]:
    """Pairs of indices of the same words, found from left to right: of each run, the next one that is near."""
    i, j = places.start, others.start
    while skipped := _next_run(
        said[i : min(places.stop, i + MOST_SKIPPED)], written[j : min(others.stop, j + MOST_SKIPPED)]
    ):
        i, j = i + skipped[0], j + skipped[1]
        while i < places.stop and j < others.stop and said[i] == written[j]:
            yield i, j
            i, j = i + 1, j + 1


def _next_run(said: Sequence[str], written: Sequence[str]) -> tuple[int, int] | None:
    """How many words of either have to be skipped, the fewest there are, before two in a row are the same."""
    in_said: dict[tuple[str, str], int] = {}
    in_written: dict[tuple[str, str], int] = {}
    for skipped, (pair, other) in enumerate(zip_longest(pairwise(said), pairwise(written))):
        for two, seen in ((pair, in_said), (other, in_written)):
            if two is not None:
                seen.setdefault(two, skipped)
        found = [(in_said[two], in_written[two]) for two in (pair, other) if two in in_said and two in in_written]
        if found:
            return min(found, key=sum)
    return None


def _anchors(said: Sequence[str], places: range, written: Sequence[str], others: range) -> list[tuple[int, int]]:
    """Pairs of indices of words that stand once in either range, and of tags if either has as many, in their order."""
    counts = Counter(said[place] for place in places)
    other_counts = Counter(written[other] for other in others)
    where = {written[other]: other for other in others}
    once = (place for place in places if counts[said[place]] == other_counts[said[place]] == 1)
    pairs = {(place, where[said[place]]) for place in once}
    if counts[TAG] == other_counts[TAG]:
        pairs |= set(zip(_all(TAG, said, places), _all(TAG, written, others), strict=True))
    return _rising(sorted(pairs))


def _all(word: str, words: Sequence[str], places: range) -> Iterator[int]:
    return (place for place in places if words[place] == word)


def _rising(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The most of these pairs, whose first numbers rise, of which the second numbers rise as well.

    It is the longest increasing subsequence by patience sorting.
    """
    tops: list[int] = []
    on_top: list[int] = []
    before: list[int] = []
    for number, (_, second) in enumerate(pairs):
        pile = bisect_left(tops, second)
        before.append(on_top[pile - 1] if pile else -1)
        tops[pile : pile + 1], on_top[pile : pile + 1] = [second], [number]
    chain: list[tuple[int, int]] = []
    number = on_top[-1] if on_top else -1
    while number >= 0:
        chain.append(pairs[number])
        number = before[number]
    return chain[::-1]
