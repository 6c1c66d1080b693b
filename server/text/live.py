"""A text that arrives over time, cut into the units that are spoken: parts of it that later text cannot change."""

from __future__ import annotations

from typing import Literal, get_args

import regex

from server.text.halves import WholeCharacters
from server.text.sentences import PROBE, UNSPACED, Boundary, cuts
from server.text.tags import says_something

Granularity = Literal["none", "sentence", "clause", "token"]
"""`token` has no units: the text goes to the model as it comes."""
GRANULARITIES: tuple[str, ...] = get_args(Granularity)

_LEAST: dict[Granularity, Boundary | None] = {
    "none": None,
    "sentence": Boundary.SENTENCE,
    "clause": Boundary.CLAUSE,
    "token": None,
}
"""The weakest boundary that ends a unit."""

LEAST_CLAUSE_CHARS = 16
"""A clause of fewer letters and digits stays with the one that follows: the model speaks very short texts badly."""
MOST_HELD = 1000
"""Characters without a boundary that are waited for; of more the text is cut at a blank."""
_PATIENCE = 8
"""After a place that was no boundary, the next one that is looked at lies this share of the text held behind it: so
the time that a text without boundaries takes grows with its length alone."""

_MORE = rf"[\p{{Pe}}\p{{Pf}}\"']*+(?:\s++\S|(?<=[\p{{Han}}。！？，、；：…」』）])[{UNSPACED}])"
_PLACES = {
    "none": None,
    "token": None,
    "sentence": regex.compile(rf"(?:\p{{Sentence_Terminal}}|[…\n]){_MORE}", regex.V1),
    "clause": regex.compile(rf"(?:\p{{Terminal_Punctuation}}|[–—…\n-]){_MORE}", regex.V1),
}
"""Where a unit may end: a mark and the first sign of what follows. A mark alone may be the middle of a number."""
_OPEN_TAG = regex.compile(r"\[[^\[\]]{0,300}+\Z|<[^<>]{0,300}+\Z")
"""A tag that has begun and not ended, which may hold signs that look like a clause's end."""
_TAG_CHARS = 300
_OPENING = regex.compile(r"\s++[\p{Pi}\p{Ps}\"']++\Z")
"""What belongs to the unit that follows."""
_LETTER = regex.compile(r"[\p{L}\p{N}]")


class Splitter:
    """Cuts one text into units, in order; joined they are the text up to white space.

    A unit has something to say: signs and voice tags alone go with what follows. One is cut off as soon as there is
    more text behind its boundary, since `3.` may go on as `3.14`; `settle` is for a text that has stopped coming. The
    text may be cut into calls of `feed` anywhere, also within a surrogate pair.

    Args:
        granularity: what a unit is; `none` makes one of all the text.
        language: ISO 639-1 code; None goes by the script.
    """

    def __init__(self, granularity: Granularity, language: str | None) -> None:
        self._least, self._places = _LEAST[granularity], _PLACES[granularity]
        self._language = language
        self._text = ""
        self._looked_at = 0
        """No unit ends before this place of the text."""
        self._characters = WholeCharacters()

    @property
    def held(self) -> bool:
        """Whether there is text that has not been given away."""
        return bool(self._text.strip())

    def feed(self, text: str) -> list[str]:
        """Take in more of the text; returns the units that are whole by now."""
        self._text += self._characters.feed(text)
        units: list[str] = []
        while self._places is not None:
            place = self._places.search(self._text, self._looked_at)
            if (place.end() if place else len(self._text)) > MOST_HELD:
                blank = self._text.rfind(" ", 1, MOST_HELD)
                units += self._take(MOST_HELD if blank < 0 else blank, drop=True)
            elif place is None:
                break
            elif says_something(self._text[: place.start()]) and (taken := self._cut(self._text[: place.end()])):
                units += taken
            else:
                self._looked_at = place.start() + 1 + place.start() // _PATIENCE
        return units

    def settle(self) -> list[str]:
        """The text has stopped coming for now: returns a last unit too where nothing but its end is missing."""
        return [] if self._least is None or not self.held else self._cut(self._text.rstrip() + PROBE)

    def flush(self) -> list[str]:
        """The text has ended: returns what is left of it. What has nothing to say is dropped."""
        units = self.feed(self._characters.end())
        if self._least is not None and self.held:
            units += self._cut(self._text)
        return units + self._take(len(self._text), drop=True)

    def _cut(self, text: str) -> list[str]:
        """Units up to the last boundary of a text, which begins as the one that is held and may go on."""
        units: list[str] = []
        start = 0
        for cut in cuts(text, self._language):
            if cut.boundary is Boundary.TEXT or cut.offset > start + len(self._text):
                break
            part = text[start : cut.offset]
            opening = _OPENING.search(part)
            part = part[: opening.start()] if opening else part
            if self._least is None or cut.boundary < self._least:
                continue
            if cut.boundary is Boundary.CLAUSE and len(_LETTER.findall(part)) < LEAST_CLAUSE_CHARS:
                continue
            if _OPEN_TAG.search(part[-_TAG_CHARS:]):
                continue
            if taken := self._take(len(part)):
                units += taken
                start += len(part)
        return units

    def _take(self, length: int, *, drop: bool = False) -> list[str]:
        """The beginning of what is held, as a unit; nothing where it has nothing to say, and then `drop` removes it."""
        unit = self._text[:length].strip()
        speakable = says_something(unit)
        if speakable or drop:
            self._text, self._looked_at = self._text[length:], 0
        return [unit] if speakable else []
