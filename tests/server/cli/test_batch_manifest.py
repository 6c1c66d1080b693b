"""The manifest of a batch that several processes make, and lines that are wrong among others that are not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from server.cli.batch import MANIFEST, Manifest, make_files, note
from server.cli.bundles import open_bundles
from server.cli.startup import open_pool, open_service, profiles_of
from server.cli.tasks import Task, Wrong, fields_reader, lines_of, readings
from server.config import Settings
from server.errors import ApiError
from server.metrics import Metrics
from server.speech.rendering import Speech
from server.speech.request import SpeechRequest
from tests.server.fakes import FakeEngine, write_bundle

SHARED = {"model": "custom", "voice": "ryan", "response_format": "wav"}


def read(path: Path) -> list[Task | Wrong]:
    return list(readings(lines_of(path), fields_reader(path), SHARED))


def task(number: int = 1, text: str = "One.") -> Task:
    (found,) = readings([(number, text)], lambda line: {"input": line}, SHARED)
    assert isinstance(found, Task)
    return found


def said(seed: int = 7) -> Speech:
    return cast(Speech, SimpleNamespace(model="custom", speaker="ryan", seed=seed, audio_seconds=1.0, times=None))


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]


def test_a_line_that_is_wrong_costs_itself_alone(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    lines = ['{"input": "One.", "id": "a"}', "{", "[]", '{"input": "Two.", "id": "A"}', "", '{"input": "Three."}']
    texts.write_text("\n".join(lines))
    first, broken, no_object, same, last = read(texts)
    assert isinstance(first, Task) and isinstance(last, Task)
    assert (first.number, first.file, last.number, last.file) == (1, "a.wav", 6, "00006.wav")
    assert first.fields == {**SHARED, "input": "One."} and last.request.input == "Three."
    wrong = [each for each in (broken, no_object, same) if isinstance(each, Wrong)]
    assert [each.number for each in wrong] == [2, 3, 4]
    assert "it is no JSON" in wrong[0].reason and wrong[1].reason == "it is no JSON object"
    assert wrong[2].reason == "line 1 has the same id"


def test_a_task_made_of_its_own_fields_is_the_same(tmp_path: Path) -> None:
    first = task()
    (again,) = readings([(1, json.loads(json.dumps(first.fields)))], dict, SHARED)
    assert isinstance(again, Task) and again.digest == first.digest


def test_an_optional_field_of_a_later_version_makes_no_file_anew() -> None:
    class Later(SpeechRequest):
        whispered: bool | None = None

    first = task()
    assert first._replace(request=Later(**first.fields)).digest == first.digest
    assert first._replace(request=Later(**first.fields, whispered=True)).digest != first.digest


def test_the_parts_of_several_processes_become_one(tmp_path: Path) -> None:
    Manifest(tmp_path)
    parts = [Manifest.part(tmp_path) for _ in range(2)]
    assert parts[0] != parts[1]
    for number, part in enumerate((*parts, tmp_path / MANIFEST), 1):
        note(part, task(number), said(), number)
        (tmp_path / f"{number:05}.wav").write_bytes(bytes(number))
    note(parts[0], task(9), said(), 9)  # its process died before the file had its name
    with parts[1].open("a") as stream:
        stream.write('{"file": "00004')  # or in the midst of its line
    made = Manifest(tmp_path)
    assert sorted(entry["line"] for entry in entries(tmp_path)) == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00001.wav", "00002.wav", "00003.wav", MANIFEST]
    assert [each.number for each in made.left([task(number) for number in (1, 2, 3, 9)])] == [9]


def test_a_file_that_is_to_be_made_anew_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / "00001.wav").write_bytes(b"old")
    before = {"file": "00001.wav", "bytes": 3, "request_sha256": "another one"}
    with (tmp_path / MANIFEST).open("a") as stream:
        stream.write(json.dumps(before) + "\n")
    made = Manifest(tmp_path)
    assert [each.number for each in made.left([task(text="After.")])] == [1]
    assert (tmp_path / "00001.wav").read_bytes() == b"old"
    assert entries(tmp_path) == [before]
    note(tmp_path / MANIFEST, task(text="After."), said(), 3)  # of as many bytes, and never put into its place
    assert not (tmp_path / "00001.wav").exists()
    assert [each.number for each in Manifest(tmp_path).left([task(text="After.")])] == [1]


def test_a_file_has_its_line_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "models", "custom", generation={"max_new_tokens": 20})
    settings = Settings(models_dir=tmp_path / "models")
    folder = tmp_path / "out"
    folder.mkdir()
    tasks = [task(1), task(2, "fail-at-start"), task(3, "Three.")]
    ends: dict[int, bool] = {}
    named: list[tuple[str, list[str]]] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        if target.suffix == ".wav":
            named.append((target.name, [entry["file"] for entry in entries(folder)]))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)

    async def work() -> None:
        pool = open_pool(settings, open_bundles(settings), FakeEngine.load, Metrics())
        service = open_service(settings, pool, profiles_of(settings))

        def ended(task: Task, end: Speech | ApiError) -> None:
            ends[task.number] = isinstance(end, ApiError)

        await make_files(service, tasks, 1, folder, folder / MANIFEST, ended)
        await pool.close()

    asyncio.run(work())
    assert ends == {1: False, 2: True, 3: False}
    assert named == [("00001.wav", ["00001.wav"]), ("00003.wav", ["00001.wav", "00003.wav"])]
    assert sorted(path.name for path in folder.iterdir()) == ["00001.wav", "00003.wav", MANIFEST]
