"""Writes dates, years and times of day as words."""

from __future__ import annotations

import re

from server.text.numerals import words

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_SHORT = {month[:3]: month for month in _MONTHS} | {"Sept": "September"}
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)}|(?:{'|'.join(short for short in _SHORT if short != 'May')})\b\.?)"
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>[12]\d{3})"

_ISO = re.compile(rf"(?<![\d-]){_YEAR}-(?P<number>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12]\d|3[01])(?:T(?=\d))?(?![\d-])")
_SLASHED = re.compile(r"(?<![\d/])(?P<one>\d{1,2})/(?P<two>\d{1,2})/(?P<year>[12]\d{3}|\d{2})(?![\d/])")
_MONTH_FIRST = re.compile(rf"\b{_MONTH} {_DAY}(?!\w|[.,:]\d)(?:(?P<comma>,?) {_YEAR}(?![\d,:%]\d|\d))?")
_DAY_FIRST = re.compile(rf"(?<![\w.,/:$-]){_DAY} {_MONTH}(?!\w)(?:(?P<comma>,?) {_YEAR}(?![\d,:%]\d|\d))?")
_DAY_RANGE = re.compile(rf"\b{_MONTH} {_DAY} ?(?:-|to) ?(?P<last>0?[1-9]|[12]\d|3[01])(?!\w|[.,:]\d)")
_DECADE = re.compile(r"(?<![\d.,$])(?P<year>1[1-9]\d0|20\d0)'?s\b")
_SHORT_DECADES = re.compile(r"(?<=\b[Tt]he )(?P<when>(?:early |late |mid-)?)(?P<ten>[2-9]0)s\b")
_SHORT_DECADE = re.compile(r"(?<!\w)'(?P<ten>[2-9]0)s\b")
_LONE_YEAR = re.compile(r"(?<![\w.,$\u20ac\u00a3/:#+-])(?P<year>1[1-9]\d\d|20\d\d)(?![\w%]|[.,:/-]\d)")
_BEFORE_A_YEAR = re.compile(
    r"(?i)\b(?:in|since|by|of|from|until|till|to|before|after|during|year|years|around|circa|through|spring|summer|"
    r"autumn|fall|winter|and|late|early|mid|\(|" + "|".join((*_MONTHS, *_SHORT)) + r")[ (]{1,2}\Z"
)
_COUNTED = re.compile(r" (?:[a-z]+s|people|men|women|children|percent|feet|more|of)\b")
_CLOCK = re.compile(
    r"(?<![\d:.,$])(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?"
    r"(?P<half> ?[AaPp]\.?[Mm]\b\.?)?(?![\d:])"
)
_FROM_TO = re.compile(r"(?<=\d)(?P<half> ?[AaPp](?:[Mm]|\.[Mm]\.)) ?- ?(?=\d)")
_HOUR = re.compile(r"(?<![\d:.,$])(?P<hour>1[0-2]|0?[1-9])(?P<half> ?[AaPp](?:\.[Mm]\.|[Mm]\b))")


def spoken_dates(text: str) -> str:
    """ISO, slashed and written dates as words.

    A slashed date has the month first, as Americans write it, unless that cannot be.
    """
    text = _ISO.sub(
        lambda it: _date(_MONTHS[int(it["number"]) - 1], it["day"], it["year"]) + " " * it[0].endswith("T"), text
    )
    text = _SLASHED.sub(_slashed, text)
    text = _DAY_RANGE.sub(lambda it: f"{_month(it['month'])} {_ordinal(it['day'])} to {_ordinal(it['last'])}", text)
    text = _MONTH_FIRST.sub(_written, text)
    return _DAY_FIRST.sub(_written, text)


def spoken_times(text: str) -> str:
    """Times of day, decades and years as words."""
    text = _DECADE.sub(lambda it: _plural(words(it["year"], kind="year")), text)
    text = _SHORT_DECADE.sub(lambda it: _plural(words(it["ten"])), text)
    text = _SHORT_DECADES.sub(lambda it: it["when"] + _plural(words(it["ten"])), text)
    text = _FROM_TO.sub(r"\g<half> to ", text)
    text = _CLOCK.sub(_clock, text)
    text = _HOUR.sub(lambda it: f"{words(str(int(it['hour'])))} {_half(it['half'])}", text)
    return _LONE_YEAR.sub(_lone_year, text)


def _written(date: re.Match[str]) -> str:
    return _date(_month(date["month"]), date["day"], date["year"], date["comma"] or ",")


def _date(month: str, day: str, year: str | None, comma: str = ",") -> str:
    said = f"{month} {_ordinal(day)}"
    return f"{said}{comma} {_year(year)}" if year else said


def _slashed(date: re.Match[str]) -> str:
    month, day = int(date["one"]), int(date["two"])
    if month > 12:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return date[0]
    return _date(_MONTHS[month - 1], str(day), date["year"])


def _month(written: str) -> str:
    return _SHORT.get(written.rstrip("."), written)


def _ordinal(day: str) -> str:
    return words(str(int(day)), kind="ordinal")


def _year(year: str) -> str:
    return words(year, kind="year").replace("oh-", "oh ")


def _plural(said: str) -> str:
    return f"{said[:-1]}ies" if said.endswith("y") else f"{said}s"


def _clock(time: re.Match[str]) -> str:
    hour, minute, half = int(time["hour"]), int(time["minute"]), time["half"] or ""
    if minute:
        said = f"{words(str(hour))} {'oh ' if minute < 10 else ''}{words(str(minute))}"
    else:
        said = words(str(hour)) + ("" if half else " o'clock" if 0 < hour < 13 else " hundred hours")
    if time["second"]:
        said += f" and {words(str(int(time['second'])))} seconds"
    return f"{said} {_half(half)}" if half else said


def _half(written: str) -> str:
    """`pm` as it is written in the model's texts; its last point stays where it ends a sentence."""
    letters = written.strip().lower()
    return letters if "." in letters else f"{letters[0]}.m."


def _lone_year(year: re.Match[str]) -> str:
    before = year.string[max(0, year.start() - 12) : year.start()]
    if _COUNTED.match(year.string, year.end()) and not _BEFORE_A_YEAR.search(before):
        return year[0]
    return _year(year["year"])
