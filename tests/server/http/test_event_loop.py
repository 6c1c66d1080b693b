"""What takes longer the longer a text or its audio is does not run on the event loop."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.audio.encoders import PcmEncoder
from server.audio.stretch import TimeStretch
from server.http.routes import speech as route
from server.speech import request_body, request_parsing
from server.speech import service as service_module
from tests.server.answers import GOOD
from tests.server.fakes import FakeEngine
from tests.server.http.test_asgi import FRAME_BYTES, in_loop, models, post, serving

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
