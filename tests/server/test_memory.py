"""What a model may need against what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from server import __main__ as command
from server import memory
from server.graphs.manifest import FileEntry, Manifest
from server.memory import Machine, MemoryShortage
from tests.server.fakes import manifest_of, write_bundle

GB = 10**9


def manifest(files: int, head_dim: int = 128) -> Manifest:
    """The shapes of the 0.6B model, with files of so many bytes."""
    made = Manifest.model_validate(manifest_of("big"))
    talker = made.sizes.talker.model_copy(
        update={"num_layers": 28, "num_kv_heads": 8, "head_dim": head_dim, "max_positions": 8192}
    )
    sizes = made.sizes.model_copy(update={"talker": talker})
    return made.model_copy(update={"sizes": sizes, "files": {"x": FileEntry(size=files, sha256="0" * 64)}})


def test_a_model_takes_its_files_and_its_rows() -> None:
    row = 2 * 28 * 8 * 8192 * 128 * 4
    assert memory.model_bytes(manifest(GB), 3) == GB + 3 * row
    assert memory.model_bytes(manifest(GB, head_dim=120), 3) == GB + 3 * row  # padded to a multiple of 16


def test_what_fits_is_not_worth_a_word() -> None:
    assert memory.check(manifest(GB), 2, Machine(total=16 * GB, available=5 * GB)) is None


def test_what_may_not_fit_is_told_with_figures() -> None:
    warning = memory.check(manifest(GB), 4, Machine(total=16 * GB, available=5 * GB))
    assert warning is not None
    for said in (
        "8.5GB",
        "1.0GB of files",
        "7.5GB of KV caches",
        "KW_MAX_ROWS=4",
        "1.9GB",
        "5.0GB",
        "lower KW_MAX_ROWS",
    ):
        assert said in warning


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(MemoryShortage, match=r"1\.9GB for the KV cache of one row.*has 1\.0GB"):
        memory.check(manifest(GB), 1, Machine(total=GB, available=GB))


def test_a_container_has_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    free = memory.machine()
    assert 0 < free.available <= free.total
    monkeypatch.setattr(memory, "memory_limit", lambda: 1_000_000)
    assert memory.machine() == Machine(1_000_000, 1_000_000)
    monkeypatch.setattr(memory, "memory_limit", lambda: 2**63 - 4096)  # what version 1 says where there is no limit
    assert memory.machine().total == free.total
    monkeypatch.setattr(memory, "memory_limit", lambda: None)
    assert memory.machine().total == free.total


def test_the_command_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "models", "custom")
    monkeypatch.setenv("KW_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setattr(memory, "machine", lambda: Machine(1000, 1000))
    assert command.main(["serve"]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if " INFO " not in line)
    assert line.startswith("qwen3-tts: custom needs 588.8KB for the KV cache of one row")
