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

import numpy as np
import regex
from numpy.typing import NDArray

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
MANY = 1000
"""Words between two anchors from which the next ones are found in arrays: an object for each word takes 100 bytes."""
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
        firsts, seconds = matches(of_said.words, of_written.words)
        self._starts, self._ends = of_said.spans(firsts)
        self._place_starts, self._place_ends = of_written.spans(seconds)
        self._written, self._said_length = written, len(said)
        unmatched = range(firsts[-1] + 1 if firsts else 0, len(of_said.words))
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


_MARK, _TAGS = hash("."), hash(TAG)
"""What marks that end a sentence are compared by, and what tags are."""


class _Tokens:
    """The tokens of a text, in little memory: a text of 100,000 characters may have as many.

    An object of each would be a part of Python's own heap, which gives a megabyte of it back only when nothing in that
    is left.

    Attributes:
        words: hashes of what each is compared by. Nobody can choose texts of the same hash, since Python draws a key.
        starts, ends: where it begins and ends in the text.
    """

    def __init__(self, text: str) -> None:
        self.words = array("q")
        self.starts, self.ends = array("I"), array("I")
        for token in matching.matches(_TOKEN, text):
            self.words.append(_word(token))
            self.starts.append(token.start())
            self.ends.append(token.end())

    def spans(self, tokens: Iterable[int]) -> tuple[array[int], array[int]]:
        """Where some tokens, given by their numbers, begin, and where they end."""
        starts, ends = array("I"), array("I")
        for token in tokens:
            starts.append(self.starts[token])
            ends.append(self.ends[token])
        return starts, ends


def _word(token: regex.Match[str]) -> int:
    """What a token is compared by: a sentence's end may be marked in another way, and a word begin with a capital."""
    return _MARK if token["mark"] else _TAGS if token["tags"] else hash(token[0].casefold())


def matches(said: Sequence[int], written: Sequence[int]) -> tuple[array[int], array[int]]:
    """Indices at which two lists have the same word: those of the first list and those of the second, both rising."""
    found = _Matches(said, written)
    found.add(range(len(said)), range(len(written)), MOST_ROUNDS)
    return found.firsts, found.seconds


class _Matches:
    """Indices of the same words in two lists, in order."""

    def __init__(self, said: Sequence[int], written: Sequence[int]) -> None:
        self._said, self._written = said, written
        self.firsts, self.seconds = array("I"), array("I")

    def add(self, places: range, others: range, rounds: int) -> None:
        """Add those of two ranges, which lie behind all that have been added."""
        said, written = self._said, self._written
        i, i_end, j, j_end = places.start, places.stop, others.start, others.stop
        while i < i_end and j < j_end and said[i] == written[j]:
            i, j = i + 1, j + 1
        self._extend(range(places.start, i), range(others.start, j))
        while i < i_end and j < j_end and said[i_end - 1] == written[j_end - 1]:
            i_end, j_end = i_end - 1, j_end - 1
        if i < i_end and j < j_end:
            self._add_between(range(i, i_end), range(j, j_end), rounds)
        self._extend(range(i_end, places.stop), range(j_end, others.stop))

    def _add_between(self, places: range, others: range, rounds: int) -> None:
        i, j = places.start, others.start
        for anchor, other in _anchors(self._said, places, self._written, others) if rounds else ():
            self.add(range(i, anchor), range(j, other), rounds - 1)
            self._extend((anchor,), (other,))
            i, j = anchor + 1, other + 1
        if i > places.start:
            self.add(range(i, places.stop), range(j, others.stop), rounds - 1)
            return
        for anchor, other in _runs(self._said, places, self._written, others):
            self._extend((anchor,), (other,))

    def _extend(self, places: Iterable[int], others: Iterable[int]) -> None:
        self.firsts.extend(places)
        self.seconds.extend(others)


def _runs(said: Sequence[int], places: range, written: Sequence[int], others: range) -> Iterator[tuple[int, int]]:
    """Pairs of indices of the same words, found from left to right: of each run, the next one that is near."""
    i, j = places.start, others.start
    while skipped := _next_run(
        said[i : min(places.stop, i + MOST_SKIPPED)], written[j : min(others.stop, j + MOST_SKIPPED)]
    ):
        i, j = i + skipped[0], j + skipped[1]
        while i < places.stop and j < others.stop and said[i] == written[j]:
            yield i, j
            i, j = i + 1, j + 1


def _next_run(said: Sequence[int], written: Sequence[int]) -> tuple[int, int] | None:
    """How many words of either have to be skipped, the fewest there are, before two in a row are the same."""
    in_said: dict[tuple[int, int], int] = {}
    in_written: dict[tuple[int, int], int] = {}
    for skipped, (pair, other) in enumerate(zip_longest(pairwise(said), pairwise(written))):
        for two, seen in ((pair, in_said), (other, in_written)):
            if two is not None:
                seen.setdefault(two, skipped)
        found = [(in_said[two], in_written[two]) for two in (pair, other) if two in in_said and two in in_written]
        if found:
            return min(found, key=sum)
    return None


def _anchors(said: Sequence[int], places: range, written: Sequence[int], others: range) -> Iterable[tuple[int, int]]:
    """Pairs of indices of words that stand once in either range, and of tags if either has as many, in their order."""
    if max(len(places), len(others)) > MANY:
        return _many_anchors(said, places, written, others)
    counts = Counter(said[place] for place in places)
    other_counts = Counter(written[other] for other in others)
    where = {written[other]: other for other in others}
    once = (place for place in places if counts[said[place]] == other_counts[said[place]] == 1)
    pairs = {(place, where[said[place]]) for place in once}
    if counts[_TAGS] == other_counts[_TAGS]:
        pairs |= set(zip(_all(_TAGS, said, places), _all(_TAGS, written, others), strict=True))
    ordered = sorted(pairs)
    return _rising([place for place, _ in ordered], [other for _, other in ordered])


def _all(word: int, words: Sequence[int], places: range) -> Iterator[int]:
    return (place for place in places if words[place] == word)


def _many_anchors(
    said: Sequence[int], places: range, written: Sequence[int], others: range
) -> Iterable[tuple[int, int]]:
    """The same, without an object for each word."""
    mine = np.asarray(said[places.start : places.stop], np.int64)
    theirs = np.asarray(written[others.start : others.stop], np.int64)
    tags, other_tags = np.flatnonzero(mine == _TAGS), np.flatnonzero(theirs == _TAGS)
    if len(tags) != len(other_tags):
        tags = other_tags = tags[:0]
    once, other_once = _once(mine), _once(theirs)
    _, first, second = np.intersect1d(mine[once], theirs[other_once], assume_unique=True, return_indices=True)
    pairs = np.stack([np.append(once[first], tags), np.append(other_once[second], other_tags)])
    pairs = np.unique(pairs, axis=1)  # a single tag is a word that stands once, too
    firsts, seconds = (pairs[0] + places.start).astype(np.int64), (pairs[1] + others.start).astype(np.int64)
    return _rising(array("q", firsts.tobytes()), array("q", seconds.tobytes()))


def _once(words: NDArray[np.int64]) -> NDArray[np.intp]:
    """Indices of the words that stand once in `[n]`, in any order."""
    _, first, counts = np.unique(words, return_index=True, return_counts=True)
    once: NDArray[np.intp] = first[counts == 1]
    return once


def _rising(firsts: Sequence[int], seconds: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The most of these pairs, whose first numbers rise, of which the second numbers rise as well.

    It is the longest increasing subsequence by patience sorting.
    """
    tops, on_top, before, chain = array("q"), array("q"), array("q"), array("q")
    for number, second in enumerate(seconds):
        pile = bisect_left(tops, second)
        before.append(on_top[pile - 1] if pile else -1)
        tops[pile : pile + 1], on_top[pile : pile + 1] = array("q", [second]), array("q", [number])
    number = on_top[-1] if on_top else -1
    while number >= 0:
        chain.append(number)
        number = before[number]
    return ((firsts[number], seconds[number]) for number in reversed(chain))
