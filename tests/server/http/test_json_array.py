"""Long arrays as JSON, which are written entry by entry."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from server.http.json_array import json_array, short_json_array

ENTRIES = [{"text": "“Two” costs $5.", "start": 0.25, "end": None}, {"text": "", "pause": True}, 3]


@pytest.mark.parametrize("number", range(len(ENTRIES) + 1))
def test_they_are_what_json_would_write(number: int) -> None:
    entries = ENTRIES[:number]
    assert json_array(iter(entries)) == json.dumps(entries)
    short = json.dumps(entries, separators=(",", ":"))
    assert short_json_array(iter(entries), len(short)) == short
    if entries:
        assert short_json_array(iter(entries), len(short) - 1) is None


def test_what_is_too_long_is_not_written_to_its_end() -> None:
    def endless() -> Iterator[str]:
        for _ in range(100):
            yield "x"
        raise AssertionError("it is too long already")

    assert short_json_array(endless(), 60) is None
