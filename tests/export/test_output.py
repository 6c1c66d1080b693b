"""Where a bundle is written: never half, never over something else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from export.checkpoint import open_checkpoint
from export.output import OutputError, bytes_needed, check_output, check_space, staged


def write_old_bundle(output: Path) -> None:
    output.mkdir()
    (output / "manifest.json").write_text("old")


def test_a_finished_folder_takes_its_place(tmp_path: Path) -> None:
    output = tmp_path / "models" / "voice"
    with staged(output) as folder:
        assert folder.parent == output.parent
        (folder / "manifest.json").write_text("new")
        assert not output.exists()
    assert (output / "manifest.json").read_text() == "new"
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staged(tmp_path / "voice") as folder:
        (folder / "talker.onnx").write_bytes(b"half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_the_old_bundle_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "voice"
    write_old_bundle(output)
    with pytest.raises(RuntimeError), staged(output):
        raise RuntimeError
    assert (output / "manifest.json").read_text() == "old"
    with staged(output) as folder:
        (folder / "other.json").write_text("new")
        assert (output / "manifest.json").read_text() == "old"
    assert [path.name for path in output.iterdir()] == ["other.json"]
    assert list(tmp_path.iterdir()) == [output]


def test_the_old_bundle_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, rename = tmp_path / "voice", Path.rename
    write_old_bundle(output)

    def rename_all_but_the_new(path: Path, target: Path) -> Path:
        if ".new-" in path.name:
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_all_but_the_new)
    with pytest.raises(OSError, match="no"), staged(output):
        pass
    assert (output / "manifest.json").read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


def test_an_existing_output_needs_force_and_must_be_a_bundle(tmp_path: Path) -> None:
    output = tmp_path / "voice"
    check_output(output, force=False)
    write_old_bundle(output)
    with pytest.raises(OutputError, match="exists already; give --force"):
        check_output(output, force=False)
    check_output(output, force=True)
    (output / "manifest.json").rename(output / "thesis.txt")
    with pytest.raises(OutputError, match=r"is not a bundle \(it has no manifest.json\)"):
        check_output(output, force=True)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OutputError, match="is not a bundle"):
        check_output(file, force=True)


def test_too_little_disk_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=2_000_000_000))
    check_space(tmp_path / "models" / "voice", 2_000_000_000)
    with pytest.raises(OutputError, match=r"needs about 2\.1 GB in .*, 2\.0 GB are free"):
        check_space(tmp_path / "models" / "voice", 2_100_000_000)
    assert asked == [tmp_path, tmp_path]


def test_the_estimate_covers_the_bundle(checkpoint_of: Callable[[str], Path], bundle_of: Callable[[str], Path]) -> None:
    size = sum(path.stat().st_size for path in bundle_of("0.6B-like").rglob("*"))
    needed = bytes_needed(open_checkpoint(str(checkpoint_of("0.6B-like"))))
    assert size < needed < 2 * size


def test_folders_in_a_bundle_outlive_its_replacement(tmp_path: Path) -> None:
    output = tmp_path / "voice"
    write_old_bundle(output)
    (output / "recipe").mkdir()
    (output / "recipe" / "notes.md").write_text("mine")
    with staged(output) as folder:
        (folder / "manifest.json").write_text("new")
    assert (output / "manifest.json").read_text() == "new"
    assert (output / "recipe" / "notes.md").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [output]
