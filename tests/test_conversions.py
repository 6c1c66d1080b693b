"""Kept conversions are used again as long as nothing changes that makes them, and never when they are damaged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests import conversions
from tests.conversions import KEPT, converted, converted_shape, makers, processor, store
from tests.server.fakes import write_bundle
from tests.sources import ROOT, sources


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sequence[str]]]:
    """The arguments of each conversion; what it makes is a bundle for the fake engine."""
    calls: list[Sequence[str]] = []

    def convert(arguments: Sequence[str]) -> int:
        calls.append(arguments)
        output = Path(arguments[arguments.index("--output") + 1])
        write_bundle(output.parent, output.name)
        sys.stdout.write(f"made {arguments[-1]}\n")
        return 1 if arguments[-1] == "impossible" else 0

    monkeypatch.setattr("export.convert.main", convert)
    yield calls
    store.cache_clear()


def test_what_was_converted_once_is_used_again(checkpoint: Path, calls: list[Sequence[str]], tmp_path: Path) -> None:
    first = converted(checkpoint, "voice", "int8", tmp_path / "kept")
    assert (first.bundle.name, first.printed) == ("voice", "made int8\n")
    assert converted(checkpoint, "voice", "int8", tmp_path / "kept") == first
    assert len(calls) == 1
    assert converted(checkpoint, "voice", "fp32", tmp_path / "kept").printed == "made fp32\n"
    (checkpoint / "config.json").write_text('{"changed": true}')
    assert converted(checkpoint, "voice", "int8", tmp_path / "kept").bundle != first.bundle
    assert len(calls) == 3


def test_a_checkpoint_is_drawn_for_a_conversion_alone(
    checkpoint: Path, calls: list[Sequence[str]], tmp_path: Path
) -> None:
    drawn: list[str] = []

    def draw(shape: str) -> Path:
        drawn.append(shape)
        return checkpoint

    first = converted_shape(draw, "short", "int8", tmp_path / "kept")
    assert converted_shape(draw, "short", "int8", tmp_path / "kept") == first
    assert (first.bundle.name, drawn, len(calls)) == ("short", ["short"], 1)
    assert converted_shape(draw, "odd", "int8", tmp_path / "kept").bundle.name == "odd"
    assert converted_shape(draw, "short", "fp32", tmp_path / "kept").printed == "made fp32\n"
    assert (drawn, len(calls)) == (["short", "odd", "short"], 3)


def test_who_finds_a_conversion_kept_imports_no_torch() -> None:
    """It takes seconds, in each part of the tests that runs in a process of its own."""
    script = "import sys, tests.conversions; tests.conversions.makers(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", ["talker.onnx", "manifest.json"])
def test_a_damaged_bundle_is_converted_again(
    checkpoint: Path, calls: list[Sequence[str]], tmp_path: Path, name: str
) -> None:
    bundle = converted(checkpoint, "voice", "int8", tmp_path / "kept").bundle
    whole = (bundle / name).read_bytes()
    (bundle / name).write_bytes(whole[:-1])
    assert converted(checkpoint, "voice", "int8", tmp_path / "kept").bundle == bundle
    assert (bundle / name).read_bytes() == whole
    assert len(calls) == 2


def test_a_failed_conversion_is_not_kept(checkpoint: Path, calls: list[Sequence[str]], tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="to impossible ended with status 1:\nmade impossible"):
            converted(checkpoint, "voice", "impossible", tmp_path / "kept")
    assert len(calls) == 2
    assert [path for path in store(tmp_path / "kept").iterdir() if path.suffix != ".lock"] == []


def test_only_the_latest_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"old{number}").mkdir()
    folder = store(tmp_path)
    assert len(list(tmp_path.iterdir())) == KEPT
    assert folder.parent == tmp_path
    store.cache_clear()


def test_every_file_that_makes_a_bundle_counts() -> None:
    found = {path.relative_to(ROOT).as_posix() for path in sources("tests.conversions")}
    drawing = {path.relative_to(ROOT).as_posix() for path in sources("tests.checkpoints")}
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "export").rglob("*.py")} <= found
    assert {"tests/conversions.py", "server/manifest.py", "server/engine/synthesizer.py"} <= found
    assert not found & {"server/http/app.py", "tests/test_conversions.py"}
    assert {"tests/checkpoints.py", "tests/random_weights.py", "tests/qwen_vocabulary.py"} <= drawing


def test_the_processor_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    makers.cache_clear()
    before = makers()
    monkeypatch.setattr(conversions, "processor", lambda: processor() + " and another flag")
    makers.cache_clear()
    assert makers() != before
    makers.cache_clear()
