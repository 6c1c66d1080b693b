"""Abbreviations in full: weekdays, months, and `e.g.` and its like."""

from __future__ import annotations

import re

_DAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
_MONTHS = {
    "Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "Jun": "June", "Jul": "July", "Aug": "August",
    "Sep": "September", "Sept": "September", "Oct": "October", "Nov": "November", "Dec": "December",
}  # fmt: skip
_FULL = _DAYS | _MONTHS
_SHORT = "|".join(sorted(_FULL, key=len, reverse=True))
_ANY = "|".join(sorted({*_FULL, *_FULL.values(), "May"}, key=len, reverse=True))
_ALSO_WORDS = frozenset({"Mon", "Wed", "Sat", "Sun", "Jan", "Mar", "Jun", "Jul", "Dec"})
"""Words or names as well: these are expanded only where what is beside them shows what is meant."""
_RANGE = re.compile(rf"\b(?P<first>{_ANY})\.? ?- ?(?P<last>{_ANY})(?!\w)(?:\.(?=[,;:)]| [a-z0-9]))?")
_NAME = re.compile(rf"\b(?P<name>{_SHORT})\b(?P<point>\.?)(?!['-]?\w)")
_BEFORE = re.compile(
    rf"(?:\b(?:on|next|last|every|by|until|since|from|[Ii]n|On)|(?:{_ANY})(?:\.?,| &| and| or| to)) \Z"
)
_BEHIND = re.compile(rf" \d|,? (?:(?:&|and|or|to) )?(?:{_ANY})\b")
_LONGEST_BEFORE = 20
_SENTENCE_GOES_ON = re.compile(r"[,;:)]| [a-z0-9&(]")

_WORDS = {"e.g.": "for example", "i.e.": "that is", "vs.": "versus", "vs": "versus", "approx.": "approximately"}
_WORD = re.compile(r"(?<![\w.])(?:[Ee]\.g\.|[Ii]\.e\.|vs\.?|[Aa]pprox\.)(?=[\s,])")


def spoken_abbreviations(text: str) -> str:
    """Weekdays, months and some other words in full; ranges of the first two with `to`."""
    text = _RANGE.sub(lambda it: f"{_whole(it['first'])} to {_whole(it['last'])}", text)
    return _WORD.sub(lambda it: _WORDS[it[0].lower()], _NAME.sub(_name, text))


def _whole(name: str) -> str:
    return _FULL.get(name, name)


def _name(found: re.Match[str]) -> str:
    text, end, name = found.string, found.end(), found["name"]
    goes_on = bool(_SENTENCE_GOES_ON.match(text, end) or _BEHIND.match(text, end))
    if (
        name in _ALSO_WORDS
        and not (found["point"] and goes_on)
        and not _BEHIND.match(text, end)
        and not _BEFORE.search(text, max(0, found.start() - _LONGEST_BEFORE), found.start())
    ):
        return found[0]
    return _FULL[name] + (found["point"] if not goes_on else "")
