"""The examples of README and docs that speak to a server, run as they stand but for its address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.running import PATIENCE_SECONDS, REAL, ROOT, RunningServer, run_server

ADDRESS = "127.0.0.1:3000"
ELSEWHERE = ("anna.wav", "sailor", "wyoming_openai", "livekit", "pipecat", "make serve")
"""Words of examples that want a model which clones, packages of `make test-clients`, or an installation."""
PAGES = ("README.md", "docs/api.md", "docs/clients.md", "docs/live.md", "docs/voices.md")


def examples() -> Iterator[tuple[str, str]]:
    """The language and the lines of each example that names the server's address."""
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        for language, code in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if ADDRESS in code and not any(word in code for word in ELSEWHERE):
                yield language, code


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`qwen3-tts serve` with the embedded model, as `make serve` starts it."""
    with run_server(REAL, tmp_path_factory.mktemp("examples"), KW_SECRET_API_KEY="") as server:
        server.wait_ready()
        yield server


@pytest.mark.parametrize(("language", "code"), examples())
def test_an_example_does_what_it_says(language: str, code: str, server: RunningServer, tmp_path: Path) -> None:
    code = code.replace(ADDRESS, f"127.0.0.1:{server.port}")
    if language == "js":
        (tmp_path / "package.json").write_text('{"type": "module"}')
        (tmp_path / "node_modules").symlink_to(ROOT / "tests" / "node" / "node_modules")
    commands = {
        "sh": ["bash", "-ec", code],
        "python": [sys.executable, "-c", code],
        "js": ["node", "--input-type=module", "--eval", code],
    }
    done = subprocess.run(
        commands[language], cwd=tmp_path, env=os.environ, timeout=PATIENCE_SECONDS, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for written in re.findall(r"hello\.\w+", code):
        audio = (tmp_path / written).read_bytes()
        assert audio[:4] == b"RIFF" if written.endswith("wav") else audio[:3] == b"ID3" or audio[0] == 0xFF


def test_there_are_examples_in_each_language() -> None:
    assert {language for language, _ in examples()} == {"sh", "python", "js"}
