"""`python -m benchmarks.peers`: which rounds count, what the table says, and that engines run in turn."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

import benchmarks.peers as peers
from benchmarks.peers import CannotSpeak, Engine, engines, run
from benchmarks.rounds import Load, Turn, disturbed, others, processor_seconds, ratios, table
from tests.bundles import RANDOM_BUNDLE


def turn(wall: float, others: float = 0.0) -> Turn:
    return Turn(wall=wall, first_audio=wall / 4, audio=2.0, others=others)


def test_others_are_what_was_busy_and_is_not_measured() -> None:
    before, after = Load(whole=100, busy=40, own=10), Load(whole=120, busy=55, own=22)
    assert others(before, after) == pytest.approx(3 / 20)
    assert others(before, Load(whole=120, busy=50, own=22)) == 0  # clocks of different grain
    assert others(before, before) == 0


def test_a_machine_counts_what_a_process_and_its_children_take() -> None:
    me = psutil.Process()
    before = Load.now(me)
    while processor_seconds(me) < before.own + 0.1:
        sum(range(10_000))
    after = Load.now(me)
    assert after.own - before.own >= 0.09  # 0.1, but for roundings
    assert after.busy > before.busy
    assert after.whole >= after.busy


def test_a_round_with_a_tenth_of_the_cores_taken_in_one_turn_is_refused() -> None:
    assert disturbed({"ours": turn(1), "theirs": turn(2, others=0.1)}) is None
    assert disturbed({"ours": turn(1, others=0.02), "theirs": turn(2, others=0.11)}) == 0.11


def test_ratios_are_those_of_each_round() -> None:
    rounds = [{"ours": turn(1), "theirs": turn(2)}, {"ours": turn(2), "theirs": turn(3)}]
    assert ratios(rounds, "theirs", "ours") == [2, 1.5]
    # The other one has made twice the sound meanwhile.
    assert ratios([{"ours": turn(1), "theirs": Turn(2, 2, 4.0, 0)}], "theirs", "ours") == [1]


def test_the_table_has_every_round_and_the_medians() -> None:
    rounds = [{"ours": turn(1), "theirs": turn(wall)} for wall in (2, 3, 4)]
    assert table(rounds, "ours", {"ours": 1_200_000_000, "theirs": 3_000_000_000}).splitlines()[2:] == [
        "| ours | 0.50 | 1.00, 1.00, 1.00 | 1.00 | 0.25 s | 1.20 GB |",
        "| theirs | 1.50 | 2.00, 3.00, 4.00 | 3.00 | 0.75 s | 3.00 GB |",
    ]


def given(**changes: object) -> argparse.Namespace:
    """Options for two small bundles, and nothing else."""
    options = {
        "checkpoint": Path("none"),
        "bundle": [RANDOM_BUNDLE, RANDOM_BUNDLE],
        "frames": 2,
        "tokens": 5,
        "rounds": 2,
        "threads": 1,
        "only": ["ours"],
        "allow_busy": False,
    }
    return argparse.Namespace(**options | changes)


@pytest.fixture
def running() -> Iterator[list[Engine]]:
    with ExitStack() as ending:
        yield list(engines(given(bundle=[RANDOM_BUNDLE]), "Hello.", 1, ending))


def test_an_engine_speaks_in_a_process_of_its_own(running: list[Engine]) -> None:
    (engine,) = running
    spoken = engine.speak(1)
    assert spoken.audio == pytest.approx(2 * 0.08)
    assert 0 < spoken.first_audio <= spoken.wall
    assert engine.peak > 50_000_000
    assert engine._process.pid != os.getpid()


@pytest.mark.parametrize(("share", "rows", "status"), [(0.05, 1, 0), (0.3, 0, 1)])
def test_busy_rounds_are_named_and_give_no_figures(
    share: float, rows: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "others", lambda before, after: share)
    assert run(given(bundle=[RANDOM_BUNDLE])) == status
    said = capsys.readouterr().out
    assert said.count("| ours, ") == rows
    assert said.count("does not count: other processes took 30% of the cores") == (0 if rows else 2)
    if not rows:
        assert "No figures" in said
        assert run(given(bundle=[RANDOM_BUNDLE], allow_busy=True)) == 0


def test_what_an_engine_lacks_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    with ExitStack() as ending:
        assert list(engines(given(only=["vox"]), "Hello.", 1, ending)) == []
    assert "vox-tts, q8: not installed; `make peers` does it" in capsys.readouterr().out
    with ExitStack() as ending, pytest.raises(SystemExit, match="no-such-folder"):
        list(engines(given(bundle=[Path("no-such-folder")]), "Hello.", 1, ending))
    with pytest.raises(CannotSpeak, match="broken: BundleError: no-such-folder"):
        Engine("broken", Path(sys.executable), {"engine": "ours", "bundle": "no-such-folder", "threads": 1})
