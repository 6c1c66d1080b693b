"""The newcomer's server ends with the newcomer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from tests import newcomer

DEAF = """serve:
\t@(trap '' TERM INT; exec sleep 60) & echo $$! >server.pid; echo ' listening url=http://here'
"""
BROKEN = """serve:
\t@echo it is broken; exit 3
"""


def clone_of(makefile: str, folder: Path) -> Path:
    clone = folder / "clone"
    clone.mkdir()
    (clone / "Makefile").write_text(makefile, "utf-8")
    return clone


def runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_is_left_of_a_server_that_heeds_no_signal(tmp_path: Path) -> None:
    clone = clone_of(DEAF, tmp_path)
    with pytest.raises(RuntimeError, match="a command failed"), newcomer.serving(clone, dict(os.environ)) as address:
        assert address == "here"
        raise RuntimeError("a command failed")
    server = int((clone / "server.pid").read_text("utf-8"))
    for _ in range(100):
        if not runs(server):
            return
        time.sleep(0.1)
    pytest.fail("the server has outlived the newcomer")


def test_what_a_server_says_that_does_not_start_is_told(tmp_path: Path) -> None:
    clone = clone_of(BROKEN, tmp_path)
    with pytest.raises(RuntimeError, match="it is broken"), newcomer.serving(clone, dict(os.environ)):
        pass
