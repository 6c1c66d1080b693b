"""Events of the Wyoming protocol, read within bounds; the `wyoming` package has their types and writes them.

An event is a line of JSON, `{"type", "data", "data_length", "payload_length"}`, behind it more data as JSON and a
payload of bytes: https://github.com/OHF-Voice/wyoming.
"""

from __future__ import annotations

import asyncio
from typing import Any

from wyoming.event import Event

from server.speech.bounded_json import read_message

EVENT_BYTES = 1 << 20
"""Of a line, of its data, and of its payload."""


class EventError(ValueError):
    """What has come is no event, or too long a one; what follows cannot be read."""


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """The next event, without its payload, which speech has no use for; None at the end of the connection.

    Args:
        reader: whose limit is at least `EVENT_BYTES`.

    Raises:
        EventError: it is malformed or too long.
    """
    try:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            return None
        head = await _object(line)
        data = await _object(await reader.readexactly(_length(head, "data_length"))) if head.get("data_length") else {}
        await reader.readexactly(_length(head, "payload_length"))
    except asyncio.IncompleteReadError:
        return None
    except ValueError as error:  # of the reader: the line is longer than its limit
        raise EventError(str(error)) from None
    kind, inline = head.get("type"), head.get("data") or {}
    if not isinstance(kind, str) or not isinstance(inline, dict):
        raise EventError("an event has a type and data")
    return Event(kind, {**inline, **data})


async def _object(text: bytes) -> dict[str, Any]:
    try:
        found = await read_message(text)
    except RecursionError:
        raise EventError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise EventError("it is no JSON object")
    return found


def _length(head: dict[str, Any], name: str) -> int:
    length = head.get(name) or 0
    if not isinstance(length, int) or not 0 <= length <= EVENT_BYTES:
        raise EventError(f"{name} is a number of at most {EVENT_BYTES}")
    return length
