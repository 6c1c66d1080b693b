"""A pronunciation dictionary, which says what to say instead of a word or phrase, in linear time."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import regex

from server.text.matching import matches
from server.text.sentences import UNSPACED

MAX_ENTRIES = 10_000
MAX_WORD_CHARS = 100
MAX_SAY_CHARS = 500
MAX_GROWTH, FREE_GROWTH_CHARS = 10, 1000
"""How much longer a text may become: a factor, and a number of characters."""
MOST_GROWTH_CHARS = 20_000
"""By how much more than its own length a long text may become longer, since the time that it takes is limited by the
length of what is sent."""

_TOKEN = regex.compile(rf"[{UNSPACED}]|[\p{{L}}\p{{M}}\p{{N}}_--[{UNSPACED}]]+|\S", regex.V1)
"""A word, a character of a script that puts no space between words, or a mark. Entries match whole tokens."""
_WANTED = 'an entry is "WORD": "what to say" or "WORD": {"say": "what to say", "any_case": true}'


class LexiconError(ValueError):
    """A dictionary cannot be used, or makes a text too long; the message says what to do."""


@dataclass(frozen=True)
class Pronunciation:
    """What to say instead of a word.

    Attributes:
        say: replaces the word; empty leaves it out.
        any_case: whether the word matches in any case, rather than only as it is written.
    """

    say: str
    any_case: bool = False


class _Layer:
    """The entries of one dictionary, found by their first token and then by their length."""

    def __init__(self, entries: Mapping[str, Pronunciation]) -> None:
        self._exact = {word: entry.say for word, entry in entries.items() if not entry.any_case}
        self._folded = {word.casefold(): entry.say for word, entry in entries.items() if entry.any_case}
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        longer: defaultdict[str, set[str]] = defaultdict(set)
        for word in entries:
            if first := _TOKEN.match(word):
                lengths[first[0].casefold()].add(len(word))
                if first.end() < len(word):
                    longer[first[0].casefold()].add(word.casefold())
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._longer = {first: sorted(found) for first, found in longer.items()}
        """Entries of several tokens, by the first of these, in order."""

    def lengths(self, first: str) -> list[int]:
        """Lengths of the entries that begin with this token, the longest first."""
        return self._lengths.get(first.casefold(), [])

    def may_go_on(self, first: str, begun: str) -> bool:
        """Whether an entry that begins with this token is longer than a text, and begins like it in some case."""
        words = self._longer.get(first.casefold(), [])
        following = bisect_right(words, begun)
        return following < len(words) and words[following].startswith(begun)

    def say(self, word: str) -> str | None:
        found = self._exact.get(word)
        return self._folded.get(word.casefold()) if found is None else found


@dataclass(frozen=True)
class Lexicon:
    """Dictionaries in the order in which they count."""

    _layers: tuple[_Layer, ...] = ()

    def before(self, other: Lexicon) -> Lexicon:
        """Put another dictionary behind this one; of two entries for the same words, this one's counts."""
        return Lexicon(self._layers + other._layers)

    def apply(self, text: str) -> str:
        """Replace whole words, the longest match first; what replaces them is not looked up again.

        Raises:
            LexiconError: the text would become more than `MAX_GROWTH` times as long and `FREE_GROWTH_CHARS` more, or
                more than twice as long and `MOST_GROWTH_CHARS` more.
        """
        if not self._layers:
            return text
        parts: list[str] = []
        end, room = 0, min(MAX_GROWTH * len(text) + FREE_GROWTH_CHARS, 2 * len(text) + MOST_GROWTH_CHARS)
        for start, stop, say in self._matches(text):
            parts += (text[end:start], say)
            room -= start - end + len(say)
            if room < 0:
                raise LexiconError(
                    f"the lexicon makes the text more than {MAX_GROWTH} times as long, or a long text more than twice; "
                    "let its entries say less"
                )
            end = stop
        return "".join((*parts, text[end:])) if parts else text

    def may_go_on(self, text: str) -> bool:
        """Whether more text may make an entry of the end of this one, or of some of its last words, and what follows.

        Args:
            text: what ends here, with the blank behind its last word if there is one.
        """
        near = max(0, len(text) - MAX_WORD_CHARS)
        return any(
            layer.may_go_on(token[0], text[token.start() :].casefold())
            for layer in self._layers
            for token in _TOKEN.finditer(text, near)
        )

    def _matches(self, text: str) -> Iterator[tuple[int, int, str]]:
        tokens = (token.span() for token in matches(_TOKEN, text))
        near: deque[tuple[int, int]] = deque()
        """The tokens from one on, as far as an entry may go."""
        done = 0
        while True:
            while not near or near[-1][1] < near[0][0] + MAX_WORD_CHARS:
                if (token := next(tokens, None)) is None:
                    break
                near.append(token)
            if not near:
                return
            start, end = near[0]
            for length in self._lengths(text[start:end]) if start >= done else ():
                stop = start + length
                ends = any(stop == token_end for _, token_end in near)
                if ends and (say := self._say(text[start:stop])) is not None:
                    yield start, stop, say
                    done = stop
                    break
            near.popleft()

    def _lengths(self, first: str) -> list[int]:
        found = [lengths for layer in self._layers if (lengths := layer.lengths(first))]
        if len(found) < 2:
            return found[0] if found else []
        return sorted({length for lengths in found for length in lengths}, reverse=True)

    def _say(self, word: str) -> str | None:
        return next((say for layer in self._layers if (say := layer.say(word)) is not None), None)


NO_LEXICON = Lexicon()
"""The dictionary that replaces nothing."""


def lexicon_of(entries: Mapping[str, object]) -> Lexicon:
    """A dictionary of entries as JSON has them: `{"WORD": "say", "WORD": {"say": "...", "any_case": true}}`.

    A word may be a phrase. It matches whole words, exactly as it is written unless `any_case` is true.

    Raises:
        LexiconError: too many entries, a word or a replacement that is too long, or something that is no entry.
    """
    if len(entries) > MAX_ENTRIES:
        raise LexiconError(f"a lexicon has at most {MAX_ENTRIES} entries, and this one has {len(entries)}")
    read = {_word(word): _pronunciation(word, entry) for word, entry in entries.items()}
    return Lexicon((_Layer(read),)) if read else NO_LEXICON


def _word(word: str) -> str:
    plain = unicodedata.normalize("NFC", " ".join(word.split()))
    if not plain:
        raise LexiconError(f"a word is empty; {_WANTED}")
    if len(plain) > MAX_WORD_CHARS:
        raise LexiconError(f"{plain[:20]!r}... is too long: a word has at most {MAX_WORD_CHARS} characters")
    return plain


def _pronunciation(word: str, entry: object) -> Pronunciation:
    if isinstance(entry, Pronunciation):
        say, any_case = entry.say, entry.any_case
    elif isinstance(entry, str):
        say, any_case = entry, False
    elif isinstance(entry, Mapping) and "say" in entry and entry.keys() <= {"say", "any_case"}:
        say, any_case = entry["say"], entry.get("any_case", False)
    else:
        raise LexiconError(f"{word[:20]!r} has no text to say; {_WANTED}")
    if not isinstance(say, str) or not isinstance(any_case, bool):
        raise LexiconError(f"{word[:20]!r} has a value of the wrong type; {_WANTED}")
    if len(say) > MAX_SAY_CHARS:
        raise LexiconError(f"{word[:20]!r} says too much: at most {MAX_SAY_CHARS} characters may replace a word")
    return Pronunciation(say, any_case)
