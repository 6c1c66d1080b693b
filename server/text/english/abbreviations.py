"""Writes abbreviations in full: weekdays, months, titles, streets, pages, and such as `e.g.`."""

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
"""Abbreviations that are words or names too; they are expanded only where the words beside them show what is meant."""
_RANGE = re.compile(rf"\b(?P<first>{_ANY})\.? ?- ?(?P<last>{_ANY})(?!\w)(?:\.(?=[,;:)]| [a-z0-9]))?")
_NAME = re.compile(rf"\b(?P<name>{_SHORT})\b(?P<point>\.?)(?!['-]?\w)")
_BEFORE = re.compile(
    rf"(?:\b(?:on|next|last|every|by|until|since|from|[Ii]n|On)|(?:{_ANY})(?:\.?,| &| and| or| to)) \Z"
)
_BEHIND = re.compile(rf" \d|,? (?:(?:&|and|or|to) )?(?:{_ANY})\b")
_LONGEST_BEFORE = 20
_SENTENCE_GOES_ON = re.compile(r"[,;:)]| [a-z0-9&(]")

_TITLES = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor", "Sen": "Senator",
    "Gen": "General", "Gov": "Governor", "Rev": "Reverend", "Capt": "Captain", "Col": "Colonel", "Lt": "Lieutenant",
    "Sgt": "Sergeant", "Pres": "President",
}  # fmt: skip
_TITLE = re.compile(rf"\b(?P<title>{'|'.join(_TITLES)})(?:\. ?|(?<=\w[rs]) )(?=[A-Z])")
_STREETS = {"St": "Street", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Ln": "Lane", "Hwy": "Highway"}
_STREET = re.compile(rf"(?<=[a-z] )(?P<street>{'|'.join(_STREETS)})\.")
_NAME_BEFORE = re.compile(r"\b(?:[A-Z][a-z]{2,}|\w+(?:st|nd|rd|th|ieth)) \Z")
_PREPOSITIONS = frozenset({"From", "The", "Near", "Under", "Visit", "And", "But"})
_SAINT = re.compile(r"\bSt\. ?(?=[A-Z])")
_NAMES_AFTER = {"Jr": "Junior", "Sr": "Senior", "Inc": "Incorporated", "Ltd": "Limited", "Corp": "Corporation"}
_AFTER_A_NAME = re.compile(rf"(?<=\w)(?P<gap>,? )(?P<word>{'|'.join(_NAMES_AFTER)})(?P<point>\.)")
_PARTS = {
    "p": "page", "pp": "pages", "pg": "page", "fig": "figure", "figs": "figures", "vol": "volume", "ch": "chapter",
    "eq": "equation", "nos": "numbers",
}  # fmt: skip
_PART = re.compile(rf"\b(?P<part>{'|'.join(_PARTS)})\. ?(?=\d)", re.IGNORECASE)

_WORDS = {
    "e.g.": "for example", "i.e.": "that is", "vs.": "versus", "vs": "versus", "approx.": "approximately",
    "w/": "with", "w/o": "without", "a.k.a.": "also known as", "and/or": "and or",
}  # fmt: skip
_WORD = re.compile(r"(?<![\w./])(?:[Ee]\.g\.|[Ii]\.e\.|vs\.?|[Aa]pprox\.|w/o?|a\.k\.a\.|and/or)(?=[\s,])")
_ET_CETERA = re.compile(r"\betc(?P<point>\.?)(?!\w)")
_EITHER = re.compile(r"(?<![\w/])(?P<one>[A-Za-z]?[a-z]+)/(?=[a-z]+(?![\w/]))")
_SLASH = re.compile(r"(?<=[A-Za-z])/(?=[A-Za-z])")


def spoken_abbreviations(text: str) -> str:
    """Weekdays, months, titles and some other words in full; ranges of the first two with `to`."""
    text = _RANGE.sub(lambda it: f"{_whole(it['first'])} to {_whole(it['last'])}", text)
    text = _WORD.sub(lambda it: _WORDS[it[0].lower()], _NAME.sub(_name, text))
    text = _TITLE.sub(lambda it: f"{_TITLES[it['title']]} ", text)
    text = _SAINT.sub("Saint ", _STREET.sub(_street, text))
    text = _AFTER_A_NAME.sub(lambda it: f"{it['gap']}{_NAMES_AFTER[it['word']]}{_point(it)}", text)
    text = _PART.sub(lambda it: f"{_PARTS[it['part'].lower()]} ", text)
    return _ET_CETERA.sub(lambda it: f"etcetera{_point(it)}", text)


def spoken_slashes(text: str) -> str:
    """The slash between two words as `or`, and any other between letters as `slash`."""
    return _SLASH.sub(" slash ", _EITHER.sub(r"\g<one> or ", text))


def _point(found: re.Match[str]) -> str:
    """The point of an abbreviation, where it may end a sentence."""
    return "" if _SENTENCE_GOES_ON.match(found.string, found.end()) else found["point"]


def _street(found: re.Match[str]) -> str:
    text, start = found.string, found.start()
    name = _NAME_BEFORE.search(text, max(0, start - _LONGEST_BEFORE), start)
    if name is None or name[0].strip() in _PREPOSITIONS:
        return found[0]
    ends = not _SENTENCE_GOES_ON.match(text, found.end())
    return _STREETS[found["street"]] + ("." if ends else "")


def _whole(name: str) -> str:
    return _FULL.get(name, name)


def _name(found: re.Match[str]) -> str:
    text, end, name = found.string, found.end(), found["name"]
    goes_on = bool(_SENTENCE_GOES_ON.match(text, end) or _BEHIND.match(text, end))
    if (
        name in _ALSO_WORDS
        and not (found["point"] and goes_on)
        and not _BEHIND.match(text, end)
        and not (name != "Jan" and _BEFORE.search(text, max(0, found.start() - _LONGEST_BEFORE), found.start()))
    ):
        return found[0]
    return _FULL[name] + (found["point"] if not goes_on else "")
