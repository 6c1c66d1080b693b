"""The commands of the pages that speak to no server, run as they stand in a folder of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from server.voices.profiles import load_profiles
from tests.bundles import TINY_BUNDLE
from tests.examples import ADDRESS, Example, examples
from tests.server.audio.recordings import recorded
from tests.server.running import clean_environment

CLONES = "docs/cloning.md"
"""The page whose commands want a model that clones."""


def run(commands: str, folder: Path, **settings: str) -> str:
    """What the commands print, one after the other in one shell, in a folder that looks like a checkout."""
    (folder / ".venv").symlink_to(sys.prefix)
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=clean_environment(HOME=str(folder), **settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_sound(file: Path) -> None:
    samples, rate = soundfile.read(file)
    assert len(samples) > 0.2 * rate
    assert np.abs(samples).max() > 0.05


def shell_examples(*, clones: bool) -> list[Example]:
    """Those with commands that can be run, but for those all of whose commands another one has."""
    wanted = [
        example
        for example in examples()
        if example.language == "sh" and ADDRESS not in example.code and (example.page == CLONES) == clones
    ]
    found: list[Example] = []
    for example in sorted(wanted, key=lambda example: -len(example.runnable())):
        if not any(set(example.runnable()) <= set(longer.runnable()) for longer in found):
            found.append(example)
    return [example for example in found if example.runnable()]


@pytest.mark.parametrize("example", shell_examples(clones=False), ids=lambda example: example.page)
def test_commands_do_what_they_say(example: Example, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / TINY_BUNDLE.name).symlink_to(TINY_BUNDLE)
    run("\n".join(example.runnable()), tmp_path, KW_MODELS_DIR=str(models))
    for written in re.findall(r"-o (\S+)", example.code):
        made = tmp_path / written
        files = [made] if made.is_file() else sorted(made.glob("*.wav"))
        assert files
        for file in files:
            check_sound(file)
    for written in re.findall(r"--captions (\S+)", example.code):
        assert "-->" in (tmp_path / written).read_text("utf-8")


@pytest.mark.parametrize("example", shell_examples(clones=True), ids=lambda example: example.page)
def test_commands_clone_a_voice(example: Example, tmp_path: Path, bundle_of: Callable[[str], Path]) -> None:
    """The model's weights are random and its speech need not end, so that its length is given."""
    (tmp_path / "anna.wav").write_bytes(recorded())
    commands = "\n".join(example.runnable()).replace(" -o hello.wav", " --exact-frames 6 -o hello.wav")
    printed = run(commands, tmp_path, KW_MODELS_DIR=str(bundle_of("Base").parent))
    assert "anna" in printed
    check_sound(tmp_path / "hello.wav")


def test_profiles_are_read(tmp_path: Path) -> None:
    (example,) = [example for example in examples() if example.language == "json"]
    (tmp_path / "voices.json").write_text(example.code, "utf-8")
    assert json.loads(example.code)["profiles"].keys() <= load_profiles(tmp_path / "voices.json").keys()


def test_prometheus_asks_the_server() -> None:
    (example,) = [example for example in examples() if example.language == "yaml"]
    (job,) = yaml.safe_load(example.code)["scrape_configs"]
    assert job["static_configs"] == [{"targets": [ADDRESS]}]
