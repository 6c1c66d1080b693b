"""`make test` runs every test, and each in one part."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections import Counter
from pathlib import Path

from tests.sources import ROOT

NOT_RUN = ("tests/clients", "tests/ray")
"""They have targets of their own, with environments of their own."""


def modules_in(*places: Path) -> set[Path]:
    """The test modules that pytest finds there; it looks into no package of Node."""
    found = {one for place in places for one in ([place] if place.is_file() else place.rglob("test_*.py"))}
    return {one for one in found if "node_modules" not in one.parts}


def modules_run_by(command: list[str]) -> set[Path]:
    """The test modules that a command runs, which is `python -m pytest` with places and places to ignore."""
    arguments = command[command.index("pytest") + 1 :]
    ignored = [one.removeprefix("--ignore=") for one in arguments if one.startswith("--ignore=")]
    named = [one for one in arguments if not one.startswith("-")]
    assert len(named) + len(ignored) == len(arguments), command
    return modules_in(*(ROOT / one for one in named)) - modules_in(*(ROOT / one for one in ignored))


def test_make_test_runs_each_test_once() -> None:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "--dry-run", "test"], cwd=ROOT, env=outside, capture_output=True, text=True, check=True
    )
    parts = [shlex.split(line) for line in done.stdout.splitlines() if " -m pytest " in line]
    assert len(parts) > 1
    run = Counter(path for part in parts for path in modules_run_by(part))
    assert {path: times for path, times in run.items() if times != 1} == {}
    assert set(run) == modules_in(ROOT / "tests") - modules_in(*(ROOT / one for one in NOT_RUN))
