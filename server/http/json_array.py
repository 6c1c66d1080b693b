"""Writes long arrays as JSON, entry by entry: one call for all of them would hold up every thread until its end."""

from __future__ import annotations

import json
from collections.abc import Iterable


def json_array(entries: Iterable[object]) -> str:
    """Write an array; of thousands of entries it is to be called in a thread."""
    return f"[{', '.join(map(json.dumps, entries))}]"


def short_json_array(entries: Iterable[object], most: int) -> str | None:
    """Write an array without blanks, of so many characters at most; None if it would be longer."""
    written: list[str] = []
    length = 1
    for entry in entries:
        written.append(json.dumps(entry, separators=(",", ":")))
        length += len(written[-1]) + 1
        if length > most:
            return None
    return f"[{','.join(written)}]"
