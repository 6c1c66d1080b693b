"""What takes longer the longer a text or its audio is does not run on the event loop."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest

from server.audio.encoders import PcmEncoder
from server.audio.stretch import TimeStretch
from server.http.routes import speech as route
from server.speech import request_body, request_parsing
from server.speech import service as service_module
from server.voices import folder
from server.voices.folder import VoiceFolder
from tests.server.answers import GOOD
from tests.server.audio.recordings import recorded
from tests.server.fakes import EVENTS, FakeEngine, write_one_of_each_type
from tests.server.http.test_asgi import (
    CONFIG,
    FRAME_BYTES,
    Engine,
    dial,
    heard,
    in_loop,
    models,
    post,
    say,
    serving,
    until,
)

__all__ = ["models"]  # a fixture

WORK: tuple[tuple[Any, str], ...] = (
    (request_body, "read_json"),
    (request_parsing, "of_object"),
    (service_module, "make_plan"),
    (FakeEngine, "prompt"),
    (FakeEngine, "count_tokens"),
    (TimeStretch, "process"),
    (PcmEncoder, "encode"),
    (PcmEncoder, "finish"),
)


@in_loop
async def test_long_work_is_done_in_threads(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loops: set[int] = set()
    threads: defaultdict[str, set[int]] = defaultdict(set)

    def watched(name: str, does: Callable[..., Any]) -> Callable[..., Any]:
        def do(*arguments: Any, **named: Any) -> Any:
            threads[name].add(threading.get_ident())
            return does(*arguments, **named)

        return do

    for owner, name in WORK:
        monkeypatch.setattr(owner, name, watched(name, getattr(owner, name)))
    start = route._start

    async def started(*arguments: Any) -> Any:
        loops.add(threading.get_ident())
        return await start(*arguments)

    monkeypatch.setattr(route, "_start", started)
    text = "It was late, and nobody at all came to the station. " * 40
    fields = {**GOOD, "input": text, "exact_frames": None, "max_new_tokens": 8, "speed": 2.0, "response_format": "pcm"}
    async with serving(models) as application:
        for stream in (True, False):
            asked = post(application, {**fields, "stream": stream})
            await asked.task
            assert asked.sent[0]["status"] == 200
            assert len(asked.body) >= FRAME_BYTES
    assert len(loops) == 1
    assert threads.keys() == {name for _, name in WORK}
    assert {name for name, where in threads.items() if where & loops} == set()


HASHED = 1 << 16
"""Bytes from which hashing takes long enough to be no work for the event loop."""


class Hashing:
    """Makes a hash, and notes which threads hash how much."""

    noted: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, make: Callable[..., Any], data: bytes = b"", **named: Any) -> None:
        self.note(data)
        self._hash = make(data, **named)

    def note(self, data: bytes) -> None:
        self.noted.append((threading.get_ident(), len(data)))

    def update(self, data: bytes) -> None:
        self.note(data)
        self._hash.update(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hash, name)


def watch_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every module of the server hash so that it is noted."""
    for name in ("sha256", "blake2b"):
        made = getattr(hashlib, name)
        for module in (hashlib, *(module for key, module in sys.modules.items() if key.startswith("server."))):
            if vars(module).get(name) is made:
                monkeypatch.setattr(module, name, partial(Hashing, made))
    monkeypatch.setattr(Hashing, "noted", [])


@in_loop
async def test_much_is_hashed_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings that come along, are uploaded, and are made up; bundles that are loaded; pages."""
    monkeypatch.setenv(EVENTS, str(tmp_path / "events.jsonl"))
    models = tmp_path / "models"
    write_one_of_each_type(models)
    (tmp_path / "voices").mkdir()
    audio = base64.b64encode(recorded()).decode()
    said = "This is what is said in the recording, word for word."
    asked = (
        ("/v1/audio/speech", {**GOOD, "model": "a_base", "voice": "default", "ref_audio": audio, "ref_text": said}),
        ("/v1/audio/voices", {"name": "anna", "ref_audio": audio, "ref_text": said, "consent": True}),
        ("/v1/audio/voices", {"name": "sailor", "instructions": "An old sailor.", "ref_text": said}),
    )
    watch_hashing(monkeypatch)
    async with serving(models, voices_dir=tmp_path / "voices") as application:
        loop = application._server._thread.ident
        hashed = [size for thread, size in Hashing.noted]
        assert max(hashed) > 500, "bundles are hashed"
        for path, fields in asked:
            before = len(Hashing.noted)
            answer = post(application, {name: value for name, value in fields.items() if name != "exact_frames"}, path)
            await answer.task
            assert answer.sent[0]["status"] == 200, answer.body
            assert max(size for _, size in Hashing.noted[before:]) >= HASHED, "a recording is hashed"
    assert loop is not None
    assert [size for thread, size in Hashing.noted if thread == loop and size >= HASHED] == []


@in_loop
async def test_the_folder_of_voices_is_read_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks for a voice, while the folder changes: to read 200 files takes 17 ms and more."""
    monkeypatch.setenv(EVENTS, str(tmp_path / "events.jsonl"))
    models, voices = tmp_path / "models", tmp_path / "voices"
    write_one_of_each_type(models)
    voices.mkdir()
    read: list[int] = []
    read_folder, times = VoiceFolder._read, count(1_000_000_000)

    def note(self: VoiceFolder, path: Path) -> None:
        read.append(threading.get_ident())
        read_folder(self, path)

    def changed() -> int:
        os.utime(voices, (time := next(times), time))
        return len(read)

    monkeypatch.setattr(VoiceFolder, "_read", note)
    monkeypatch.setattr(folder, "_LOOKED_SECONDS", 0.05)
    audio = base64.b64encode(recorded()).decode()
    new = {"name": "anna", "ref_audio": audio, "x_vector_only_mode": True, "consent": True}
    asked: tuple[tuple[str, dict[str, Any] | None], ...] = (
        ("/v1/audio/voices", None),
        ("/v1/audio/voices/anna", None),
        ("/v1/audio/speech", {**GOOD, "exact_frames": 4}),
        ("/v1/audio/voices", new),
    )
    async with serving(models, voices_dir=voices) as application:
        loop = application._server._thread.ident
        for path, fields in asked:
            before = changed()
            if fields is None:
                answer = Engine(application, "http", path)
                answer.give("http.request")
            else:
                answer = post(application, fields, path)
            await answer.task
            assert len(read) > before, f"{path} has the folder read"
        for live in ({}, {"split_granularity": "token"}):
            before = changed()
            connection = dial(application)
            text = {"type": "input.text", "text": "Hello there. "}
            say(connection, {**CONFIG, "model": "a_base", "voice": "anna", **live}, text, {"type": "input.done"})
            await until(lambda connection=connection: heard(connection, "session.done"), "it has spoken")  # type: ignore[misc]
            assert len(read) > before, "a configuration has it read"
            say(connection, {"type": "session.close"})
            await connection.task
    assert loop is not None
    assert loop not in read
