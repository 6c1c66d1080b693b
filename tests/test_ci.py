"""`.ci/run`, with stand-ins for what it starts: one fault fails it, and whatever ends it ends everything."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.server.running import PATIENCE_SECONDS, ROOT, wait_until

STAND_IN = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$SEEN"
if [[ "$(basename "$0") $*" == $FAILING ]]; then exit 3; fi
if [[ "$(basename "$0") $*" == $ENDLESS ]]; then
    sleep 600 &
    echo "$$ $!" >>"$SEEN.endless"
    wait
fi
"""
ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
FOUND = ("node", "npm", "curl", "make", "chromium", "chromium-headless-shell")
STARTED = (
    "make --jobs=2 tools",
    "make test",
    "make check",
    "make test-python",
    "check.sh",
    "python -m tests.newcomer",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script, in which everything that it starts is a stand-in."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    for place in (*(f"bin/{name}" for name in FOUND), "deploy/check.sh", ".venv/bin/python"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN, "utf-8")
        path.chmod(0o755)
    newest = tmp_path / ".ci" / "newest-python"
    newest.write_text("#!/bin/sh\necho python-of-tomorrow\n", "utf-8")
    newest.chmod(0o755)
    return tmp_path


def start(checkout: Path, *, failing: str = "", endless: str = "") -> subprocess.Popen[str]:
    environment = os.environ | {
        "PATH": f"{checkout / 'bin'}:{os.environ['PATH']}",
        "SEEN": str(checkout / "seen"),
        "FAILING": failing,
        "ENDLESS": endless,
    }
    return subprocess.Popen(
        [str(checkout / ".ci" / "run")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=hear_signals,
    )


def hear_signals() -> None:
    """A shell ignores for good what whoever started the tests had them ignore, such as `nohup`."""
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)


def started(checkout: Path) -> list[str]:
    seen = (checkout / "seen").read_text("utf-8").splitlines()
    return [each for each in STARTED if any(line.startswith(each) for line in seen)]


def test_it_starts_all_there_is(checkout: Path) -> None:
    process = start(checkout)
    printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, printed
    assert started(checkout) == list(STARTED)


@pytest.mark.parametrize("failing", [f"{each}*" for each in STARTED[1:]])
def test_one_fault_fails_it_and_keeps_nothing_else_from_being_run(checkout: Path, failing: str) -> None:
    process = start(checkout, failing=failing)
    printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1, printed
    kept = "python -m tests.newcomer" if failing == "make check*" else ""
    assert started(checkout) == [each for each in STARTED if each != kept]


def is_gone(number: int) -> bool:
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
@pytest.mark.parametrize("at_work", [("--jobs=2*", "test-python*"), ("test", "check", "test-python*")], ids=str)
def test_what_ends_it_ends_all_that_it_has_started(
    checkout: Path, number: signal.Signals, at_work: tuple[str, ...]
) -> None:
    noted = checkout / "seen.endless"

    def all_begun() -> list[str] | None:
        lines = noted.read_text("utf-8").splitlines() if noted.exists() else []
        return lines if len(lines) == len(at_work) else None

    process = start(checkout, endless=f"make @({'|'.join(at_work)})")
    begun = wait_until(all_begun, "everything has begun")
    process.send_signal(number)
    printed, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + number, printed
    for each in (int(one) for line in begun for one in line.split()):
        wait_until(lambda each=each: is_gone(each), f"process {each} has ended")
