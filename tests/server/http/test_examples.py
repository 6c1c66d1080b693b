"""The examples of README and docs that speak to a server, run as they stand but for its address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.examples import ADDRESS, Example, examples
from tests.server.audio.recordings import recorded
from tests.server.running import PATIENCE_SECONDS, REAL, ROOT, RunningServer, run_server

CLIENTS = ("livekit", "pipecat")
"""Packages of `make test-clients`; `tests/clients/test_snippets.py` runs their examples."""
RECORDING = "anna.wav"
"""Whoever names it wants a model that clones."""


def here(*, clones: bool) -> list[Example]:
    """The examples that speak to a server and can be run."""
    return [
        example
        for example in examples()
        if ADDRESS in example.code
        and example.language in ("sh", "python", "js")
        and not any(package in example.code for package in CLIENTS)
        and (example.language != "sh" or example.runnable())
        and (RECORDING in example.code) == clones
    ]


def run(example: Example, server: RunningServer, folder: Path, **changes: str) -> None:
    """Run an example as it stands, but for the server's address and the changes that are named."""
    code = "\n".join(example.runnable()) if example.language == "sh" else example.code
    for old, new in {ADDRESS: f"127.0.0.1:{server.port}", **changes}.items():
        assert old in code
        code = code.replace(old, new)
    if example.language == "js":
        (folder / "package.json").write_text('{"type": "module"}')
        (folder / "node_modules").symlink_to(ROOT / "tests" / "node" / "node_modules")
    commands = {
        "sh": ["bash", "-ec", code],
        "python": [sys.executable, "-c", code],
        "js": ["node", "--input-type=module", "--eval", code],
    }
    done = subprocess.run(
        commands[example.language],
        cwd=folder,
        env=os.environ,
        timeout=PATIENCE_SECONDS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for written in re.findall(r"hello\.\w+", code):
        audio = (folder / written).read_bytes()
        assert audio[:4] == b"RIFF" if written.endswith("wav") else audio[:3] == b"ID3" or audio[0] == 0xFF


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`qwen3-tts serve` with the embedded model, as `make serve` starts it."""
    with run_server(REAL, tmp_path_factory.mktemp("examples"), KW_SECRET_API_KEY="") as server:
        server.wait_ready()
        yield server


@pytest.mark.parametrize("example", here(clones=False), ids=lambda example: f"{example.page}-{example.language}")
def test_an_example_does_what_it_says(example: Example, server: RunningServer, tmp_path: Path) -> None:
    run(example, server, tmp_path)


@pytest.mark.parametrize("example", here(clones=True), ids=lambda example: f"{example.page}-{example.language}")
def test_an_example_clones_a_voice(
    example: Example, bundle_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """The model's weights are random and its speech need not end, so that its length is given."""
    (tmp_path / RECORDING).write_bytes(recorded())
    (tmp_path / "voices").mkdir()
    settings = {"KW_MODELS_DIR": str(bundle_of("Base").parent), "KW_VOICES_DIR": str(tmp_path / "voices")}
    with run_server(REAL, tmp_path_factory.mktemp("clones"), KW_SECRET_API_KEY="", **settings) as server:
        server.wait_ready()
        run(example, server, tmp_path, **{'"input"': '"exact_frames": 6, "input"'})
        with server.client() as client:
            assert [voice["name"] for voice in client.get("/v1/audio/voices").json()["uploaded_voices"]] == ["anna"]


def test_there_are_examples_in_each_language() -> None:
    assert {example.language for example in here(clones=False)} == {"sh", "python", "js"}
    assert here(clones=True)
