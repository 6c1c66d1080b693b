"""The speech of a text that arrives over time: what is made beside it is let go with it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from server.cli.startup import open_pool
from server.config import Settings
from server.metrics import Metrics
from server.models.catalogue import Bundles, find
from server.speech.live import LONG_CHARS, LiveSpeech, LiveText
from server.speech.request import SpeechRequest
from server.speech.service import SpeechService
from server.text.tags import Part, Spoken, TagError, TagStream
from tests.server.clock import run, settle, skip, until
from tests.server.fakes import FakeEngine, write_bundle


class Roomy(FakeEngine):
    """An engine that has rows to spare."""

    rows = 4


class Taken(Roomy):
    """An engine whose rows others have at first."""

    taken = Roomy.rows

    @property
    def running(self) -> int:
        return super().running + self.taken


def open_service(folder: Path, engine: type[FakeEngine]) -> SpeechService:
    write_bundle(folder, "custom")
    pool = open_pool(Settings(models_dir=folder), Bundles(find(folder), None), engine.load, Metrics())
    return SpeechService(pool, {}, 1000)


async def hear(service: SpeechService) -> None:
    """Ask for units of a live text, and stay with the first one for ever."""
    text = LiveText("sentence", "en", 1000)
    text.feed("One. Two. Three.")
    request = SpeechRequest(input="a", voice="serena", exact_frames=2000)
    async with aclosing(LiveSpeech(service, request, text).units()) as units:
        async for _ in units:
            await asyncio.Event().wait()


def users(service: SpeechService) -> int:
    return sum(entry.users for entry in service.pool._entries.values())


def test_a_unit_made_ahead_is_let_go_however_often_the_one_who_hears_is_cancelled(tmp_path: Path) -> None:
    service = open_service(tmp_path, Roomy)

    async def play() -> None:
        for settled in (False, True):
            hearing = asyncio.create_task(hear(service))
            await until(lambda: users(service) == 2, "the second unit is asked for beside the first one")
            if settled:
                await until(lambda: service.pool.loaded()["custom"].waiting, "the second unit is begun")
                await settle()
            for _ in range(10):
                hearing.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([hearing])
            await until(lambda: not users(service), "nothing is left that uses the engine")

    asyncio.run(play())


def test_a_unit_is_made_ahead_as_soon_as_rows_that_others_have_end(tmp_path: Path) -> None:
    service = open_service(tmp_path, Taken)

    async def play() -> None:
        hearing = asyncio.create_task(hear(service))
        engine = await until(lambda: service.pool.loaded().get("custom"), "the engine is there")
        await until(lambda: engine.running > engine.taken, "the first unit is begun")
        await skip(10)
        assert users(service) == 1
        engine.taken = 0
        await until(lambda: users(service) == 2, "the second unit is asked for beside the first one")
        hearing.cancel()
        await asyncio.wait([hearing])

    run(play())


def test_a_text_of_many_tags_is_taken_apart_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    feed = TagStream.feed

    def noted(stream: TagStream, text: str) -> list[Part | TagError]:
        lengths.append(len(text))
        return feed(stream, text)

    monkeypatch.setattr(TagStream, "feed", noted)

    async def play() -> None:
        text = LiveText("token", "en", 100_000)
        text.feed("[voice:a]" * 10_000 + "So")
        text.end()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        assert await text.begins()
        counting.cancel()
        assert await text.parts() == [Spoken("So", "a")]
        assert await text.parts() == []
        assert await text.parts() is None
        assert sum(lengths) == 90_002
        assert max(lengths) <= LONG_CHARS
        assert turns >= len(lengths) - 1

    asyncio.run(play())


def test_what_is_dropped_says_nothing_once_its_text_has_ended() -> None:
    async def play() -> None:
        text = LiveText("token", "en", 1000)
        text.feed("One two [paus")
        assert await text.begins()
        dropping = asyncio.create_task(text.drop())
        await settle()
        text.feed(" three")
        text.end()
        await dropping
        assert not await text.begins()
        assert await text.parts() is None

    asyncio.run(play())
