"""Prepares a text that arrives over time: the parts of it that are as later text cannot change them.

What is given out is what `prepare` makes of the whole text, where that is plain: a part ends between two words, or two
characters of a script without spaces, which no step of preparation looks at together. Where a step might (numbers,
abbreviations and the like for a model with an alphabet, entries of a lexicon of several words), the part goes on up to
words that are plain again, or to the end of the sentence. A line break ends a paragraph here unless the next line
begins with a small letter, or both lines are in a script without spaces: the lines that follow cannot be waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import regex

from server.text.lexicon import Lexicon
from server.text.lines import PARAGRAPH
from server.text.prepare import Prepared
from server.text.sentences import UNSPACED, Boundary, cuts
from server.text.speakable import Letters, is_speakable

MOST_HELD = 1000
"""Characters without a certain end of a part that are waited for; more of them are a part as they are."""
_AT_ONCE = 100
"""Characters that are looked at together, so that no part becomes much longer than it has to be."""

_BREAK = r"[\n\r\v\f\u0085\u2028\u2029]"
_LINE_END = regex.compile(
    rf"\s*+(?<={_BREAK}\s*)(?=\S)(?:(?<={_BREAK}[ \t]*\n\s*)|(?!\p{{Ll}})(?!(?<=[{UNSPACED}]\n)[{UNSPACED}]))",
    regex.V1,
)
"""A blank line, or a line break that is no mere blank, with all white space around it."""
_BETWEEN_WORDS = regex.compile(
    rf"(?<=\S)[\p{{Zs}}\t]++(?=[\p{{L}}\p{{N}}])|(?<=[{UNSPACED}])(?=[{UNSPACED}])", regex.V1
)
_PLAIN = r"[a-z]+(?:'[a-z]+)?"
_SPELT = regex.compile(
    rf"(?<=(?:^|[\s\"(])(?:I|[A-Z]?(?!vs\b){_PLAIN}),?)\ (?={_PLAIN},?\ {_PLAIN}[,.;:!?]?\s)", regex.V1
)
"""Between two words in lower case, a third being known: no number, date or abbreviation reaches so far."""
_CAPITAL = regex.compile(r"\s++\p{Lu}")
_END = r"[\p{Sentence_Terminal}…][\p{Pe}\p{Pf}\"']*+"
_ENDED = regex.compile(rf"{_END}\Z")
_CLOSING = 8
"""Characters in which a sentence's last mark stands, with those behind it."""
_NEW_SENTENCE = regex.compile(_END + _CAPITAL.pattern)

Prepare = Callable[[str, bool, bool], Prepared]
"""Prepares a part, which begins a line or not, and ends one or not."""


class Preparation(NamedTuple):
    """How the parts of a text are prepared.

    Attributes:
        prepare: prepares one of them.
        lexicon: whose entries no part may cut.
        spelt: whether what is written is turned into words: numbers, dates and the like.
        language: ISO 639-1 code; None goes by the script.
    """

    prepare: Prepare
    lexicon: Lexicon
    spelt: bool
    language: str | None


class Gradual:
    """One text in the making, without tags.

    Args:
        preparation: how it is prepared.
    """

    def __init__(self, preparation: Preparation) -> None:
        self.preparation = preparation
        self.letters = Letters(0, 0)
        """Of what has been prepared."""
        self._held = ""
        self._passed = 0
        """Up to here an entry of the lexicon may go on at every place between two words; more text changes none."""
        self._begins_line = True
        self._joint = ""
        """What stands before the next part that says something."""

    @property
    def held(self) -> str:
        """What has come and is not certain yet."""
        return self._held

    def feed(self, text: str) -> list[str]:
        """Take in more of the text, cut off anywhere.

        Returns:
            What of it is certain by now, prepared, in order; joined it is the text. `PARAGRAPH` stands where a
            paragraph ends, and what follows that begins without a blank.
        """
        said: list[str] = []
        for start in range(0, len(text), _AT_ONCE):
            self._held += text[start : start + _AT_ONCE]
            while end := _LINE_END.search(self._held):
                said += self._take(end.start(), end.end(), ends_line=True)
            while place := self._certain():
                said += self._take(place, place)
        return said

    def end(self) -> list[str]:
        """What is left of the text, prepared, since it is over; `PARAGRAPH` ends it."""
        return self._take(len(self._held), len(self._held), ends_line=True)

    def _certain(self) -> int:
        """Where the next part ends: with its sentence, or as far as what is held is certain; 0 if it does not yet."""
        held, preparation = self._held, self.preparation
        if len(held) > MOST_HELD:
            return blank if (blank := held.rfind(" ")) > 0 else len(held)
        if preparation.spelt:
            places = [found.start() for found in _SPELT.finditer(held) if found.start() > self._passed]
            ends = [end for end in self._sentence_ends() if _CAPITAL.match(held, end)]
        else:
            places = [found.start() for found in _BETWEEN_WORDS.finditer(held) if found.start() > self._passed]
            ends = [place for place in places if _ENDED.search(held, max(0, place - _CLOSING), place)]
        for place in (*ends, *reversed(places)):
            if is_speakable(held[:place]) and not preparation.lexicon.may_go_on(f"{held[:place]}{_blank(held[place])}"):
                return place
        self._passed = max(places, default=self._passed)
        return 0

    def _sentence_ends(self) -> Iterator[int]:
        if _NEW_SENTENCE.search(self._held):
            for cut in cuts(self._held, self.preparation.language):
                if cut.boundary >= Boundary.SENTENCE:
                    yield cut.offset

    def _take(self, stop: int, rest: int, *, ends_line: bool = False) -> list[str]:
        """Prepare what is held up to `stop`, and drop what stands before `rest`."""
        part, self._held, self._passed = self._held[:stop], self._held[rest:], 0
        if part[:1].isspace() and not self._begins_line:
            self._joint = " "
        done = self.preparation.prepare(part, self._begins_line, ends_line)
        self.letters = Letters(self.letters.all + done.letters.all, self.letters.foreign + done.letters.foreign)
        said: list[str] = []
        if done.text:
            said, self._joint = [self._joint + done.text.replace(PARAGRAPH, " ")], ""
        if ends_line:
            said, self._joint = [*said, PARAGRAPH], ""
        self._begins_line = ends_line
        return said


def _blank(following: str) -> str:
    return " " if following.isspace() else ""
