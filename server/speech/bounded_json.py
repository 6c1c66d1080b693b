"""Reads JSON that strangers send, with a bound on how many values it makes of it.

`json.loads` holds the interpreter's lock until it has read everything. 24 MB of empty arrays kept all threads waiting
for 11 s and took 500 MB; a request with a recording may be half as long.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

import regex

MOST_VALUES = 100_000
"""The most commas, colons and opening brackets together, and the most strings. A number in an array has one of them, an
empty array two: a batch of 32 texts with a dictionary of 1000 words each has 64,000. `json.loads` takes some 10 ms for
whatever 100,000 of them can make."""

LONG = 1 << 14
"""Characters from which a message of a conversation is read in a thread."""

_MARK = regex.compile(r'[",:\[{]')
_IN_STRING = regex.compile(r'(?:[^"\\]++|\\.){0,1000}+', regex.DOTALL)


class TooManyValuesError(ValueError):
    """A text in JSON has more values than anything that is asked for needs."""


class NoNumberError(ValueError):
    """A text has NaN or Infinity, which JSON does not have; the message is its name."""


def read_json(text: str) -> Any:
    """Read a value. For other than short texts it is to be called in a thread.

    Raises:
        TooManyValuesError: it has more values than `MOST_VALUES` allows.
        NoNumberError: it has NaN or Infinity.
        ValueError, RecursionError: it is no JSON, or nested too deeply; see `json.loads`.
    """
    _check(text)
    return json.loads(text, parse_constant=_no_constant)


async def read_message(text: str) -> Any:
    """Read a value as `read_json` does, a long one in a thread."""
    return read_json(text) if len(text) < LONG else await asyncio.to_thread(read_json, text)


def _check(text: str) -> None:
    marks = strings = place = 0
    while found := _MARK.search(text, place, concurrent=True):
        place = found.end()
        if found[0] == '"':
            strings += 1
            place = _string_end(text, place)
        else:
            marks += 1
        if max(marks, strings) > MOST_VALUES:
            raise TooManyValuesError(f"it has more than {MOST_VALUES} values")


def _string_end(text: str, place: int) -> int:
    """Where the string ends that has begun before a place; the end of the text if it does not end."""
    while (inside := _IN_STRING.match(text, place, concurrent=True)) and inside.end() > place:
        place = inside.end()
    return place + 1 if text.startswith('"', place) else len(text)


def _no_constant(name: str) -> NoReturn:
    raise NoNumberError(name)
