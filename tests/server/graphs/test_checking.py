"""The stamp of verified files: it saves hashing, and never hides a file that has changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from server.graphs import checking
from server.graphs.checking import verify_files
from server.manifest import BundleError, Manifest, read_manifest, sha256_of
from tests.server.fakes import write_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, "bundle")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the bundles that were verified in full."""
    names: list[str] = []

    def verify(folder: Path, manifest: Manifest) -> None:
        names.append(folder.name)
        verify_files(folder, manifest)

    monkeypatch.setattr(checking, "verify_files", verify)
    return names


def verify(folder: Path) -> None:
    checking.verify_once(folder, read_manifest(folder))


def test_files_are_hashed_once(folder: Path, hashed: list[str]) -> None:
    before = {path.name for path in folder.iterdir()}
    for _ in range(3):
        verify(folder)
    assert hashed == ["bundle"]
    assert {path.name for path in folder.iterdir()} == {*before, checking.STAMP_NAME}


def flip(file: Path) -> None:
    """Other bytes of the same length, and the old time."""
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # until the file system's clock has moved on
        file.write_bytes(b"\x08" * before.st_size)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    copy = file.with_name("copy")
    shutil.copy2(file, copy)
    flip(copy)
    copy.replace(file)


def shorten(file: Path) -> None:
    file.write_bytes(b"\x07")


@pytest.mark.parametrize("change", [flip, replace, shorten, Path.unlink])
def test_a_changed_file_is_found(folder: Path, change: Callable[[Path], None]) -> None:
    verify(folder)
    change(folder / "talker.onnx")
    with pytest.raises(BundleError, match=r"talker\.onnx"):
        verify(folder)


def test_a_damaged_bundle_gets_no_stamp(folder: Path) -> None:
    flip(folder / "talker.onnx")
    for _ in range(2):
        with pytest.raises(BundleError, match=r"talker\.onnx is damaged"):
            verify(folder)


def test_a_graph_that_becomes_another_file_is_looked_at(folder: Path) -> None:
    """The files are the same, but one is now opened as a graph, and its weights are in no list."""
    path = folder / "notes.onnx"
    path.write_bytes(b"\x0a\x08location\x12\x06secret")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    verify(folder)
    manifest["graphs"]["talker"]["file"] = path.name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"notes\.onnx reads 'secret', which manifest\.json does not list"):
        verify(folder)


def test_another_manifest_is_checked_against_the_files(folder: Path) -> None:
    verify(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["talker.onnx"]["sha256"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"talker\.onnx is damaged"):
        verify(folder)


def test_a_copied_stamp_counts_for_nothing(folder: Path, tmp_path: Path, hashed: list[str]) -> None:
    verify(folder)
    verify(shutil.copytree(folder, tmp_path / "copy"))
    assert hashed == ["bundle", "copy"]


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{}"])
def test_a_damaged_stamp_is_replaced(folder: Path, hashed: list[str], content: bytes) -> None:
    (folder / checking.STAMP_NAME).write_bytes(content)
    verify(folder)
    verify(folder)
    assert hashed == ["bundle"]


def test_a_stamp_that_cannot_be_written_or_read_stops_nothing(folder: Path, hashed: list[str]) -> None:
    before = {path.name for path in folder.iterdir()}
    (
        folder / checking.STAMP_NAME
    ).mkdir()  # stands for a read-only folder: root, who runs some tests, may write anywhere
    for _ in range(2):
        verify(folder)
    assert hashed == ["bundle", "bundle"]
    assert {path.name for path in folder.iterdir()} == {*before, checking.STAMP_NAME}
