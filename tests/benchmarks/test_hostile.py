"""The benchmark of hostile callers: what it finds fault with, and that its attacks reach a server."""

from __future__ import annotations

import re
import sys
from collections import Counter

import pytest

from benchmarks import hostile
from benchmarks.attacks import ATTACKS
from benchmarks.hostile import MEGABYTE, Cost, missed
from benchmarks.observed import Heard, Part, Probe, Seen
from tests.bundles import RANDOM_BUNDLE

QUICK = [Probe(0.0, 0.004)] * 100
STEADY = Heard(0.0, 2.0, "whole", 200, (Part(0.1, 1.0), Part(1.0, 1.0)))


def cost(**fields: object) -> Cost:
    return Cost("it", **{"got": Counter({"200": 3, "429": 2, "503": 1}), "seen": Seen(QUICK, [], [STEADY])} | fields)


def test_costs_within_the_limits_are_reported_as_wanted() -> None:
    assert list(missed([cost()], 0.01)) == ["All as wanted."]


@pytest.mark.parametrize(
    ("found", "held", "says"),
    [
        (cost(peak=65 * MEGABYTE), 0.0, "65 MB"),
        (cost(got=Counter({"500": 2})), 0.0, "2 answers of 5xx"),
        (cost(seen=Seen([*QUICK, Probe(0.0, 0.11)], [], [STEADY])), 0.0, "/livez"),
        (cost(seen=Seen([*QUICK, *[Probe(0.0, 0.03)] * 5], [], [STEADY])), 0.0, "/livez"),
        (cost(seen=Seen(QUICK, [], [Heard(0, 9, "whole", 200, (Part(0, 1), Part(5, 1)))])), 0.0, "starved"),
        (cost(seen=Seen(QUICK, [], [Heard(0, 9, "failed", 500)])), 0.0, "starved"),
        (cost(), 0.06, "memory afterwards"),
    ],
)
def test_a_cost_above_its_limit_is_reported(found: Cost, held: float, says: str) -> None:
    lines = list(missed([found], held))
    assert lines[0] == "Wanted, and missed:"
    assert len(lines) == 2
    assert says in lines[1]


def test_attacks_have_names_of_their_own() -> None:
    names = [str(attack.__doc__).strip() for attack in ATTACKS]
    assert len(set(names)) == len(names)
    assert all("\n" not in name for name in names)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_whole_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_START_SECONDS", "LEAST_SECONDS", "QUIET_SECONDS", "TIDIED_SECONDS"):
        monkeypatch.setattr(hostile, name, 0.001)
    few_frames = ["--bundle", str(RANDOM_BUNDLE), "--frames", "8", "--threads", "1"]
    hostile.main(["--only", "smuggling", "foreign_pages", "--seconds", "1", "--rounds", "2", *few_frames])
    out = capsys.readouterr().out
    assert "| 5 x 400 |" in out
    assert out.count("| 4 x 403, 1 x curl 200 |") == 2
    more = r"[+-][\d.]+% \([+-][\d.]+ MB, [+-][\d.]+ MB of files\)"
    assert re.search(rf"after each round {more}, {more}, and ", out)
    assert "of 4 callers at once, as many as there are rows, 4 were served" in out
