"""The load generator on the bundle that the repository ships."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.clients import Ask, connect, listen, take_turns, watching
from benchmarks.load import main
from benchmarks.observed import Heard, Seen
from tests.bundles import RANDOM_BUNDLE
from tests.server.running import KEY, RunningServer

MIXED = [
    Ask("Hello", 3, 1),
    Ask("Hello", 3, 2, leave=0),
    Ask("Hello there, and good night.", 20, 3, leave=1),
    Ask("Hello", 4, 4, pace=100.0),
]


def cells(printed: str) -> dict[str, list[str]]:
    rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|"))
    return {name: values for name, *values in rows}


def test_callers_are_measured_and_plotted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "plots" / "load.png"
    options = ["--bundle", str(RANDOM_BUNDLE), "--plot", str(plot), "--rows", "2", "--threads", "1"]
    main(["callers", *options, "--callers", "2", "--frames", "3", "--requests", "2", "--rounds", "1"])
    printed = capsys.readouterr().out
    found = cells(printed)
    assert found["measured"] == ["1 caller", "2 callers"]
    assert found["requests whole / left / failed"] == ["2 / 0 / 0", "4 / 0 / 0"]
    assert found["audio heard, s"] == ["0.5", "1.0"]
    assert "Throughput with 2 callers / with 1: " in printed
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_long_text_ends_although_the_model_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bundle", str(RANDOM_BUNDLE), "--plot", str(tmp_path / "load.png"), "--rows", "2", "--threads", "1"]
    main(["long", *options, "--characters", "380", "--frames", "3", "--rounds", "1"])
    printed = capsys.readouterr().out
    assert cells(printed)["requests whole / left / failed"] == ["1 / 0 / 0", "3 / 0 / 0"]
    assert cells(printed)["audio heard, s"][1] == f"{3 * 3 * 0.08:.1f}"
    assert "380 characters, 3 chunks" in printed


def test_clients_tell_whole_answers_from_those_they_left(real_server: RunningServer) -> None:
    async def work() -> list[Heard]:
        async with connect(real_server.url, KEY) as http:
            return await take_turns(http, 1, MIXED)

    seen = Seen()
    with watching(real_server.url, KEY, seen):
        whole, left_unheard, left, slow = asyncio.run(work())
    assert [one.outcome for one in (whole, left_unheard, left, slow)] == ["whole", "left", "left", "whole"]
    assert [one.slow for one in (whole, left_unheard, left, slow)] == [False, False, False, True]
    assert (whole.audio, slow.audio) == (pytest.approx(0.24), pytest.approx(0.32))
    assert whole.ttfa is not None and 0 < whole.ttfa <= whole.ended - whole.began
    assert seen.probes and seen.states
    assert all(state.rss for state in seen.states)


def test_a_failed_request_is_reported_with_its_problem(real_server: RunningServer) -> None:
    async def work(url: str, key: str) -> Heard:
        async with connect(url, key) as http:
            return await listen(http, MIXED[0])

    refused, unreachable = asyncio.run(work(real_server.url, "wrong")), asyncio.run(work("http://127.0.0.1:9", KEY))
    assert (refused.outcome, refused.problem) == ("failed", "status 401")
    assert unreachable.outcome == "failed"
    assert str(unreachable.problem).startswith("ConnectError")


def test_a_server_that_does_not_answer_is_not_watched(real_server: RunningServer) -> None:
    with pytest.raises(EOFError), watching(real_server.url, "wrong", Seen()):
        pass
