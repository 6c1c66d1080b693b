"""The speech of a text that arrives over time: what is made beside it is let go with it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

from server.cli.startup import open_pool
from server.config import Settings
from server.metrics import Metrics
from server.models.catalogue import Bundles, find
from server.models.pool import EnginePool
from server.speech.live import LiveSpeech, LiveText
from server.speech.request import SpeechRequest
from server.speech.service import SpeechService
from tests.server.clock import settle, until
from tests.server.fakes import FakeEngine, write_bundle


class Roomy(FakeEngine):
    """An engine that has rows to spare."""

    rows = 4


def test_a_unit_made_ahead_is_let_go_however_often_the_one_who_hears_is_cancelled(tmp_path: Path) -> None:
    write_bundle(tmp_path, "custom")
    settings = Settings(models_dir=tmp_path)
    pool = open_pool(settings, Bundles(find(tmp_path), None), Roomy.load, Metrics())
    service = SpeechService(pool, {}, 1000)
    request = SpeechRequest(input="a", voice="serena", exact_frames=2000)

    async def hear() -> None:
        text = LiveText("sentence", "en", 1000)
        text.feed("One. Two. Three.")
        async with aclosing(LiveSpeech(service, request, text).units()) as units:
            async for _ in units:
                await asyncio.Event().wait()

    async def play() -> None:
        for settled in (False, True):
            hearing = asyncio.create_task(hear())
            await until(lambda: users(pool) == 2, "the second unit is asked for beside the first one")
            if settled:
                await until(lambda: pool.loaded()["custom"].waiting, "the second unit is begun")
                await settle()
            for _ in range(10):
                hearing.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([hearing])
            await until(lambda: not users(pool), "nothing is left that uses the engine")

    asyncio.run(play())


def users(pool: EnginePool) -> int:
    return sum(entry.users for entry in pool._entries.values())
