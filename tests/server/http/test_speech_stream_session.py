"""The conversation of WS `/audio/speech/stream`, over a socket without a network."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from server.cli.startup import open_pool
from server.config import Settings
from server.http import stream_session
from server.http.access import KeyLimit
from server.http.capacity import Turns
from server.http.doors import Doors, StreamLimits
from server.http.stream_session import Session
from server.http.websocket import Bounded, WebSocket
from server.metrics import Metrics
from server.models.catalogue import Bundles, find
from server.speech.bounded_json import LONG, MOST_VALUES
from server.speech.rendering import WholeFiles
from server.speech.service import SpeechService
from tests.server.clock import run, settle, skip, until
from tests.server.fakes import FakeEngine, write_bundle
from tests.server.http.test_speech_stream import CONFIG
from tests.server.speech.test_service import Pool, service_of

IDLE_SECONDS = 60.0
A_ROUND = 4


class Socket:
    """Gives the messages that it is given, and keeps what it is sent."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[str | None] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.closed = False

    def tell(self, kind: str, **fields: object) -> None:
        self.incoming.put_nowait(json.dumps({"type": kind, **fields}))

    async def receive(self) -> str | None:
        return await self.incoming.get()

    async def send(self, message: str | bytes, bounded: Bounded) -> None:
        if isinstance(message, str):
            self.sent.append(json.loads(message))

    async def close(self, code: int = 1000) -> None:
        self.closed = True


@asynccontextmanager
async def conversation(service: SpeechService, turns: Turns) -> AsyncIterator[Socket]:
    """A socket with a configuration, which the client leaves at the end."""
    limits = StreamLimits(sockets=1, idle_seconds=IDLE_SECONDS, timeout=0, text_chars=1000, message_bytes=1000)
    socket = Socket()
    session = Session(Doors(service, Metrics(), KeyLimit(0), WholeFiles(1000), limits), "id", None, turns)
    socket.tell("session.config", **CONFIG)
    talking = asyncio.create_task(session.run(cast(WebSocket, socket)))
    yield socket
    socket.incoming.put_nowait(None)
    await talking


def test_a_text_whose_unit_waits_for_the_model_is_not_idle() -> None:
    async def play() -> None:
        pool = Pool()
        async with conversation(service_of(pool), Turns(A_ROUND)) as socket:
            socket.tell("input.text", text="One. Two")
            await until(lambda: pool.waiting, "the unit waits for the model")
            await skip(2 * IDLE_SECONDS)
            assert not socket.closed
            assert not socket.sent

    run(play())


def test_a_text_of_which_the_rest_is_dropped_is_idle() -> None:
    async def play() -> None:
        async with conversation(service_of(Pool(places=0)), Turns(A_ROUND)) as socket:
            socket.tell("input.text", text="One. Two. Three")
            await until(lambda: socket.sent, "the unit is refused")
            await skip(2 * IDLE_SECONDS)
            assert [event["code"] for event in socket.sent] == ["queue_full", "timeout"]

    run(play())


def test_an_utterance_that_has_failed_ends_with_its_input_done() -> None:
    async def play() -> None:
        pool = Pool(places=0)
        async with conversation(service_of(pool), Turns(A_ROUND)) as socket:
            socket.tell("input.text", text="One. Two")
            await until(lambda: socket.sent, "the unit is refused")
            pool.places = 10
            for text in (". Three. ", "Four. ", "Five"):
                socket.tell("input.text", text=text)
                await settle()
            assert [event["type"] for event in socket.sent] == ["error"]
            assert pool.places == 10
            socket.tell("input.done")
            await settle()
            assert [event["type"] for event in socket.sent] == ["error", "session.done"]
            socket.tell("input.done")
            await settle()
            assert [event.get("utterance_index") for event in socket.sent] == [0, 0, 1]

    run(play())


@pytest.mark.parametrize("how", ["input.cancel", "session.close"])
def test_an_utterance_that_has_failed_can_be_ended_otherwise(how: str) -> None:
    async def play() -> None:
        async with conversation(service_of(Pool(places=0)), Turns(A_ROUND)) as socket:
            socket.tell("input.text", text="One. Two")
            await until(lambda: socket.sent, "the unit is refused")
            socket.tell(how)
            await settle()
            assert [event["type"] for event in socket.sent] == ["error", "session.done"]
            assert socket.sent[1].get("cancelled", False) is (how == "input.cancel")
            assert socket.closed is (how == "session.close")

    run(play())


def test_each_utterance_that_is_cancelled_is_told_so() -> None:
    async def play() -> None:
        pool = Pool()
        async with conversation(service_of(pool), Turns(A_ROUND)) as socket:
            for text in ("One. Two", "Three.", ""):
                socket.tell("input.text", text=text)
                socket.tell("input.done")
            socket.tell("input.text", text="Four")
            await until(lambda: pool.waiting, "the first one waits for the model, and the others for the first")
            socket.tell("input.cancel")
            await until(lambda: len(socket.sent) == 4, "each of them is over")
            ends = [event for event in socket.sent if event["type"] == "session.done"]
            assert [(end["utterance_index"], end["total_sentences"]) for end in ends] == [(i, 0) for i in range(4)]
            assert all(end.get("cancelled") for end in ends)
            socket.tell("input.done")
            await until(lambda: len(socket.sent) == 5, "the next one is over")
            assert "cancelled" not in socket.sent[-1]

    run(play())


def test_few_messages_are_taken_in_a_round_and_a_configuration_that_is_there_is_not_checked_again() -> None:
    async def play() -> None:
        service = service_of(Pool())
        checked: list[object] = []
        check = service.check
        service.check = lambda request, **way: checked.append(request) or check(request, **way)  # type: ignore[func-returns-value,method-assign]
        async with conversation(service, Turns(A_ROUND)) as socket:
            for frames in (2, 2, 3, 3):
                socket.tell("session.config", **{**CONFIG, "exact_frames": frames})
            await settle()
            assert [cast(Any, request).exact_frames for request in checked] == [2, 3]
            for _ in range(100):
                socket.tell("session.config", **CONFIG)
            rounds = 0
            while not socket.incoming.empty():
                left = socket.incoming.qsize()
                await asyncio.sleep(0)
                assert left - socket.incoming.qsize() <= A_ROUND + 1
                rounds += 1
            assert rounds >= 100 / (A_ROUND + 1)

    run(play())


class Stepped(FakeEngine):
    """An engine that makes a frame for each time that it is let."""

    rows = 4

    def __init__(self, *arguments: Any) -> None:
        self.permits = threading.Semaphore(0)
        super().__init__(*arguments)

    def before_frame(self) -> None:
        self.permits.acquire()


@pytest.mark.parametrize("granularity", ["sentence", "token"])
@pytest.mark.parametrize("how", ["input.cancel", "close", "text that waits"])
def test_barge_in_frees_the_row_within_one_frame(tmp_path: Path, granularity: str, how: str) -> None:
    write_bundle(tmp_path, "custom")
    pool = open_pool(Settings(models_dir=tmp_path), Bundles(find(tmp_path), None), Stepped.load, Metrics())
    frames = 3

    async def play() -> None:
        async with conversation(SpeechService(pool, {}, 1000), Turns(A_ROUND)) as socket:
            config = {name: value for name, value in CONFIG.items() if name != "exact_frames"}
            socket.tell("session.config", **{**config, "split_granularity": granularity})
            waits = how == "text that waits"
            socket.tell("input.text", text="a b" if waits and granularity == "token" else "So it is. And so on")
            await until(lambda: pool.loaded(), "the engine is loaded")
            engine = cast(Stepped, pool.loaded()["custom"])
            if waits and granularity == "token":
                await until(lambda: engine.running, "the row is begun")
            else:
                engine.permits.release(frames)
                await until(lambda: engine.frames_made == frames, "frames are made")
            before = engine.frames_made
            if how == "close":
                socket.incoming.put_nowait(None)
            else:
                socket.tell("input.cancel")
            await settle()
            engine.permits.release(100)
            await until(lambda: not engine.running and not engine.waiting, "no row runs")
            assert engine.frames_made - before <= 1

    run(play())


def test_a_text_that_stops_coming_ends_its_unit_and_goes_on_in_another(tmp_path: Path) -> None:
    write_bundle(tmp_path, "custom")
    pool = open_pool(Settings(models_dir=tmp_path), Bundles(find(tmp_path), None), FakeEngine.load, Metrics())

    async def play() -> None:
        async with conversation(SpeechService(pool, {}, 1000, text_seconds=2.0), Turns(A_ROUND)) as socket:

            def heard(kind: str) -> list[dict[str, Any]]:
                return [event for event in socket.sent if event["type"] == kind]

            socket.tell("session.config", **{**CONFIG, "split_granularity": "token", "exact_frames": 4})
            socket.tell("input.text", text="One two")
            await until(lambda: heard("audio.start"), "it is heard")
            for _ in range(12):
                await skip(0.2)
            await until(lambda: heard("audio.done"), "the unit ends")
            assert not heard("session.done")
            socket.tell("input.text", text=" three")
            socket.tell("input.done")
            (done,) = await until(lambda: heard("session.done"), "the text is over")
            assert [start["sentence_index"] for start in heard("audio.start")] == [0, 1]
            assert (done["total_sentences"], heard("error")) == (2, [])

    run(play())


@pytest.mark.parametrize("length", [LONG // 2, 2 * LONG, 5 * MOST_VALUES])
def test_a_message_of_any_length_is_read_up_to_so_many_values(length: int) -> None:
    async def play() -> None:
        pool = Pool()
        async with conversation(service_of(pool), Turns(A_ROUND)) as socket:
            socket.tell("input.text", text="One. Two", more=[[]] * (length // 4))
            if length // 4 > MOST_VALUES // 2:
                await until(lambda: socket.sent, "an answer comes")
                (error,) = socket.sent
                assert f"more than {MOST_VALUES} values" in error["message"]
                assert not pool.waiting
            else:
                await until(lambda: pool.waiting, "the unit waits for the model")

    run(play())


@pytest.mark.parametrize("entries", [1, 1000])
def test_a_long_configuration_is_read_in_a_thread(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    request_of = stream_session.request_of

    def noted(sent: dict[str, Any]) -> Any:
        threads.append(threading.get_ident())
        return request_of(sent)

    monkeypatch.setattr(stream_session, "request_of", noted)

    async def play() -> None:
        async with conversation(service_of(Pool()), Turns(A_ROUND)) as socket:
            socket.tell("session.config", **CONFIG, lexicon={f"some words {number}": "x" for number in range(entries)})
            await until(lambda: len(threads) == 2, "both are read")
        assert [error for error in socket.sent if error["type"] == "error"] == []

    run(play())
    assert (threads[1] != threading.get_ident()) == (entries == 1000)
