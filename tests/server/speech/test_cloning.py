"""Recordings wait in line to be read and encoded, and only so many of them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from server.audio.recording import Recording, read_recording
from server.engine.reference import Reference
from server.errors import BusyError
from server.models.threads import NICE
from server.speech import cloning
from server.speech.cloning import Prepared, References
from server.speech.fetching import Sources
from tests.server.audio.recordings import recorded
from tests.server.running import PATIENCE_SECONDS


class SlowEngine:
    """Encodes once it may; the embedding tells how many it has begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.may = threading.Event()

    def encode_reference(self, samples: NDArray[np.float32], text: str | None) -> Reference:
        self.begun += 1
        assert self.may.wait(PATIENCE_SECONDS)
        return Reference(np.full(4, self.begun, np.float32))


@pytest.fixture
def engine() -> Any:
    return SlowEngine()


async def prepared(references: References, text: str) -> Prepared:
    return await references.prepare_file(recorded(), text, tail=True, field="audio_sample")


def test_only_so_many_recordings_wait(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloning, "MOST_WAITING", 2)

    async def run() -> None:
        references = References(Sources(1_000_000))
        voices = [await prepared(references, text) for text in "abc"]
        begun = [asyncio.create_task(references.encode(voice, "base", engine)) for voice in voices[:2]]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await references.encode(voices[2], "base", engine)
        with pytest.raises(BusyError):
            await prepared(references, "d")
        begun[1].cancel()  # its client has left
        await asyncio.wait([begun[1]])
        third = asyncio.create_task(references.encode(voices[2], "base", engine))
        engine.may.set()
        assert [(await task).speaker[0] for task in (begun[0], third)] == [1, 2]

    asyncio.run(run())


def test_what_has_been_encoded_does_not_wait_for_others(engine: Any) -> None:
    async def run() -> None:
        references = References(Sources(1_000_000))
        known, new = await prepared(references, "known"), await prepared(references, "new")
        engine.may.set()
        made = await references.encode(known, "base", engine)
        engine.may.clear()
        slow = asyncio.create_task(references.encode(new, "base", engine))
        while engine.begun < 2:
            await asyncio.sleep(0.001)
        async with asyncio.timeout(30):
            assert await references.encode(known, "base", engine) is made
        engine.may.set()
        await slow

    asyncio.run(run())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such priorities")
def test_reading_and_encoding_give_way_to_the_event_loop_as_the_engine_does(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both take seconds, and encoding takes as many processors as rows under way do."""
    found: list[int] = []

    def note() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def read(*arguments: Any, **options: Any) -> Recording:
        note()
        return read_recording(*arguments, **options)

    def encode(samples: NDArray[np.float32], text: str | None) -> Reference:
        note()
        return Reference(np.zeros(4, np.float32))

    async def run() -> None:
        references = References(Sources(1_000_000))
        await references.encode(await prepared(references, "a"), "base", engine)

    monkeypatch.setattr(cloning, "read_recording", read)
    engine.encode_reference = encode
    note()
    asyncio.run(run())
    own, reading, encoding = found
    assert reading == encoding == min(own + NICE, 19)
