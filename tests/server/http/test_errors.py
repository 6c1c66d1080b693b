"""Errors that nobody foresaw, and the log lines they leave."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sanic import Request

from server import log
from server.http.error_answers import JsonErrors


def test_an_unforeseen_error_tells_the_client_nothing(caplog: pytest.LogCaptureFixture) -> None:
    request = cast(Request, SimpleNamespace(id="r1"))
    try:
        raise OSError("/secret/place holds the private text")
    except OSError as error:
        response = JsonErrors().default(request, error)
    assert response.status == 500
    assert "secret" not in str(response.body)
    (record,) = caplog.records
    assert "id=r1 error=OSError" in record.message
    assert "test_errors.py" in record.message
    assert "private" not in record.message


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"a": 1, "b": None, "c": 0.12345}, "it a=1 c=0.123"),
        ({"a": "two words", "b": 'quo"te', "c": ""}, 'it a="two words" b="quo\\"te" c=""'),
        ({"a": "line\nbreak", "b": "é"}, 'it a="line\\nbreak" b="\\u00e9"'),
    ],
)
def test_events_are_one_line_each(fields: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log.event("it", **fields)
    assert caplog.records[0].message == line


def test_a_stack_trace_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    try:
        log.configure()
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("some.library").exception("it failed")
        printed = capsys.readouterr().err
    finally:
        logging.getLogger().handlers[:] = before
    assert printed.count("\n") == 1
    assert "ValueError: why" in printed


def test_what_strangers_can_cause_is_logged_seldom(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    seldom = log.Seldom("it", seconds=10)
    for _ in range(500):
        seldom.event(a=1)
    now += 10
    seldom.event(a=2)
    assert [record.message for record in caplog.records] == ["it times=1 a=1", "it times=500 a=2"]


def test_few_lines_a_second_are_let_in(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    few = log.Few("left_out", 3)
    assert [few.one_more() for _ in range(8)] == [True] * 3 + [False] * 5
    now += 0.9
    assert not few.one_more()
    assert not caplog.records
    now += 0.1
    assert [few.one_more() for _ in range(3)] == [True] * 3
    now += 1
    assert few.one_more()
    assert [record.message for record in caplog.records] == ["left_out times=6"]
