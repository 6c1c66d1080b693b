"""Unfinished files of processes that were killed, and those of processes that live."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from server.cli.batch import Manifest
from server.http import key_file
from server.leftovers import LEFT_SECONDS, UNFINISHED, unfinished
from server.voices.folder import VoiceFolder
from server.voices.saved import SUFFIX

OF_VOICES = (f".anna{SUFFIX}.k3j_x0ab{UNFINISHED}",)
OF_BATCHES = tuple(f"{name}{UNFINISHED}" for name in (".00001.wav.4711", ".a.b.mp3.7", ".manifest.jsonl.12"))
KEPT = (
    f"anna{SUFFIX}",
    ".hidden.txt",
    ".notes.7z",
    ".x.wav.1",
    ".manifest.jsonl.2",
    f".notes.txt.12{UNFINISHED}",
    ".manifest.part-0.jsonl",
    "00001.wav",
    f".anna{SUFFIX}.backup-of-it",
    f".anna{SUFFIX}.download",
    f".anna{SUFFIX}.k3j_x0ab",
    ".keys.k3j_x0ab",
    ".keys.download",
)


def fill(folder: Path, names: tuple[str, ...], age: float) -> None:
    for name in names:
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (time.time() - age,) * 2)


@pytest.mark.parametrize(("opened", "unfinished"), [(VoiceFolder, OF_VOICES), (Manifest, OF_BATCHES)])
def test_old_ones_are_removed_and_nothing_else(tmp_path: Path, opened: type, unfinished: tuple[str, ...]) -> None:
    fill(tmp_path, (*unfinished, *KEPT), LEFT_SECONDS + 60)
    parts = {".manifest.part-0.jsonl", "manifest.jsonl"} if opened is Manifest else set()  # a manifest takes them up
    opened(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left - parts == set(KEPT) - parts


@pytest.mark.parametrize(("opened", "unfinished"), [(VoiceFolder, OF_VOICES), (Manifest, OF_BATCHES)])
def test_those_of_a_process_at_work_stay(tmp_path: Path, opened: type, unfinished: tuple[str, ...]) -> None:
    fill(tmp_path, unfinished, LEFT_SECONDS - 60)
    opened(tmp_path)
    assert set(unfinished) <= {path.name for path in tmp_path.iterdir()}


def test_what_was_left_of_a_key_file_is_removed_with_the_next_key(tmp_path: Path) -> None:
    left = f".keys.k3j_x0ab{UNFINISHED}"
    fill(tmp_path, (left, f".other.k3j_x0ab{UNFINISHED}", *KEPT), LEFT_SECONDS + 60)
    key_file.add(tmp_path / "keys", "anna")
    assert {path.name for path in tmp_path.iterdir()} == {"keys", f".other.k3j_x0ab{UNFINISHED}", *KEPT}


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    VoiceFolder(tmp_path / "voices")


def test_a_folder_that_cannot_be_read_is_told_by_who_reads_it(tmp_path: Path) -> None:
    assert VoiceFolder(tmp_path / ("x" * 300)).all() == []


@pytest.mark.parametrize("name", ["00001.wav", "a.b.mp3", "manifest.jsonl"])
def test_what_a_process_leaves_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    left = unfinished(tmp_path / name)
    fill(tmp_path, (left.name,), LEFT_SECONDS + 60)
    Manifest(tmp_path)
    assert not left.exists()
