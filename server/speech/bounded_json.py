"""Reads JSON that strangers send, with a bound on how many values it makes of it.

`json.loads` holds the interpreter's lock until it has read everything. 24 MB of empty arrays kept all threads waiting
for 11 s and took 500 MB; a request with a recording may be half as long. Of 14 MB that are a string it takes 36 ms, and
70 ms where the string is full of escapes, so that a long string is read in pieces, apart from everything else.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from typing import Any, NoReturn

import regex

MOST_VALUES = 100_000
"""The most commas, colons and opening brackets together, and the most strings. A number in an array has one of them, an
empty array two: a batch of 32 texts with a dictionary of 1000 words each has 64,000. `json.loads` takes some 10 ms for
whatever 100,000 of them can make."""

LONG = 1 << 14
"""Bytes from which a message of a conversation is read in a thread."""
LONG_STRING = 1 << 16
"""Bytes from which a string is read in pieces, if it is as recordings are: in ASCII, with no escapes of four digits."""

_MARK = regex.compile(rb'[",:\[{]')
_IN_STRING = regex.compile(rb'(?:[^"\\]++|\\.){0,1000}+', regex.DOTALL)
_SIGNS, _ESCAPE = rb"[ !#-\[\]-~]", rb'\\[/bfnrt"\\]'
_PIECE = regex.compile(rb"(?:%b{1,64}+|%b){1,1000}+" % (_SIGNS, _ESCAPE))


class TooMuchError(ValueError):
    """A text in JSON has more than anything that is asked for needs."""


class NoNumberError(ValueError):
    """A text has NaN or Infinity, which JSON does not have; the message is its name."""


def read_json(data: bytes, most: int | None = None) -> Any:
    """Read a value. For other than short texts it is to be called in a thread.

    Args:
        data: in UTF-8, with or without a byte order mark.
        most: bytes beside long strings that are as recordings are; None is no limit.

    Raises:
        TooMuchError: it has more bytes, or more values than `MOST_VALUES` allows.
        NoNumberError: it has NaN or Infinity.
        ValueError, RecursionError: it is no JSON, or nested too deeply; see `json.loads`.
    """
    strings = [(start, end) for start, end in _strings(data) if _is_long(data, start, end)]
    names = {secrets.token_hex(16): place for place in strings}
    rest = b"".join(_with_names(data, names)) if names else data
    if most is not None and len(rest) > most:
        raise TooMuchError(f"it has more than {most} bytes beside recordings in base64")
    text = rest.decode("utf-8-sig")
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        before = text[text.rfind("\n", 0, error.pos) + 1 : error.pos]
        error.colno += sum(end - start - len(name) for name, (start, end) in names.items() if name in before)
        raise
    return _put_back(found, {name: _in_pieces(data, *place) for name, place in names.items()}) if names else found


async def read_message(data: bytes) -> Any:
    """Read a value as `read_json` does, a long one in a thread."""
    return read_json(data) if len(data) < LONG else await asyncio.to_thread(read_json, data)


def _strings(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each string begins and ends; raises `TooMuchError` when there are too many values."""
    marks = strings = place = 0
    while found := _MARK.search(data, place, concurrent=True):
        place = found.end()
        if found[0] == b'"':
            strings += 1
            end = _string_end(data, place)
            yield place, end
            place = end + 1
        else:
            marks += 1
        if max(marks, strings) > MOST_VALUES:
            raise TooMuchError(f"it has more than {MOST_VALUES} values")


def _string_end(data: bytes, place: int) -> int:
    """Where the string ends that has begun before a place; the end of the text if it does not end."""
    while (inside := _IN_STRING.match(data, place, concurrent=True)) and inside.end() > place:
        place = inside.end()
    return place if data.startswith(b'"', place) else len(data)


def _is_long(data: bytes, start: int, end: int) -> bool:
    """Whether a string is to be read in pieces."""
    if end - start < LONG_STRING or end == len(data):
        return False
    while start < end and (piece := _PIECE.match(data, start, end, concurrent=True)):
        start = piece.end()
    return start == end


def _with_names(data: bytes, names: dict[str, tuple[int, int]]) -> Iterator[bytes]:
    """The text, with a name in place of each long string."""
    place = 0
    for name, (start, end) in names.items():
        yield data[place:start]
        yield name.encode()
        place = end
    yield data[place:]


def _in_pieces(data: bytes, start: int, end: int) -> str:
    """What a long string is; each piece holds the interpreter's lock for less than a millisecond."""
    return "".join(json.loads(b'"%b"' % piece[0]) for piece in _PIECE.finditer(data, start, end, concurrent=True))


def _put_back(value: Any, strings: dict[str, str]) -> Any:
    """A value, with its long strings in place of their names."""
    if isinstance(value, str):
        return strings.get(value, value)
    if isinstance(value, list):
        return [_put_back(entry, strings) for entry in value]
    if isinstance(value, dict):
        return {strings.get(name, name): _put_back(entry, strings) for name, entry in value.items()}
    return value


def _no_constant(name: str) -> NoReturn:
    raise NoNumberError(name)
