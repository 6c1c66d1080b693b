"""A stream whose client takes nothing is broken off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from sanic import Request

from server.routes import speech as route
from server.service import Speech


class StalledResponse:
    async def send(self, part: bytes) -> None:
        await asyncio.Event().wait()


class StalledRequest:
    """Stands for a Sanic request: when its transport is aborted, its task is cancelled."""

    id = "stalled"
    aborted = False

    def __init__(self) -> None:
        self.transport = self
        self._task = asyncio.current_task()

    async def respond(self, **fields: Any) -> StalledResponse:
        return StalledResponse()

    def abort(self) -> None:
        self.aborted = True
        assert self._task
        self._task.cancel()


class EndlessSpeech:
    seed = 1
    content_type = "audio/pcm"

    async def parts(self) -> AsyncIterator[bytes]:
        while True:
            yield b"\0\0"


def test_a_client_that_takes_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "STALL_SECONDS", 0.01)

    async def stall() -> bool:
        request = StalledRequest()
        with pytest.raises(asyncio.CancelledError):
            await route._stream(cast(Request, request), cast(Speech, EndlessSpeech()))
        return request.aborted

    assert asyncio.run(stall())
