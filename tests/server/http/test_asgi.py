"""The server as an ASGI application: what an engine hands over and gets back, and what happens when either leaves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import h11
import pytest
from sanic import Sanic
from websockets.asyncio.client import ClientConnection

from server.cli import asgi
from server.cli.errors import CommandError
from server.cli.startup import open_pool
from server.config import Settings
from server.http.app import create_app
from server.http.asgi import AsgiApplication, BrokenOff, NotReady, _ask
from server.http.asgi_conversation import MOST_SAID
from server.metrics import Metrics
from server.models.catalogue import Bundles, find
from tests.server.answers import GOOD
from tests.server.fakes import EVENTS, FRAME_SECONDS, GATE, FakeEngine, write_bundle
from tests.server.running import KEY, PATIENCE_SECONDS

FRAME_BYTES = 3840
LONG = {**GOOD, "exact_frames": 2000}


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def runs(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return runs


async def until(condition: Callable[[], Any], what: str) -> Any:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (outcome := condition()):
            await asyncio.sleep(0.01)
    return outcome


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(EVENTS, str(tmp_path / "events.jsonl"))
    write_bundle(tmp_path / "models", "custom")
    return tmp_path / "models"


def happened(models: Path, event: str) -> list[dict[str, Any]]:
    """What the fake engine noted under this name so far."""
    file = models.parent / "events.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [noted for noted in map(json.loads, lines) if noted["event"] == event]


def make(models: Path, left_out: tuple[bytes, ...] = (), **settings: Any) -> AsgiApplication:
    chosen = Settings(models_dir=models, **{"secret_api_key": (KEY,), **settings})
    metrics = Metrics()
    pool = open_pool(chosen, Bundles(find(models), None), FakeEngine.load, metrics)
    app = create_app(chosen, pool, {}, metrics)
    Sanic.unregister_app(app)
    app.config.TOUCHUP = False  # at the start of an app Sanic rewrites methods of its own, which it can do once
    return AsgiApplication(app, chosen.drain_seconds, left_out)


@asynccontextmanager
async def serving(models: Path, left_out: tuple[bytes, ...] = (), **settings: Any) -> AsyncIterator[AsgiApplication]:
    application = make(models, left_out, **settings)
    await application.start()
    try:
        yield application
    finally:
        await application.stop()


class Engine:
    """What an ASGI engine does for one request or WebSocket."""

    def __init__(self, application: AsgiApplication, kind: str, path: str, **scope: Any) -> None:
        headers = scope.pop("headers", {"authorization": f"Bearer {KEY}"})
        self.scope = {
            "type": kind,
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "client": ["192.0.2.7", 4000],
            "headers": [(b"host", b"example.org"), *((k.encode(), v.encode()) for k, v in headers.items())],
            **scope,
        }
        self.sent: list[dict[str, Any]] = []
        self._coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(application(self.scope, self._coming.get, self._send))

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def left(self) -> int:
        """Events that the application has not asked for yet."""
        return self._coming.qsize()

    def give(self, kind: str, **fields: Any) -> None:
        self._coming.put_nowait({"type": kind, **fields})

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(name.decode(), value.decode()) for name, value in self.sent[0]["headers"]]


def post(application: AsgiApplication, fields: dict[str, Any], path: str = "/v1/audio/speech", **scope: Any) -> Engine:
    body = json.dumps(fields).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "content-length": str(len(body))}
    engine = Engine(application, "http", path, method="POST", **{"headers": headers, **scope})
    engine.give("http.request", body=body[:5], more_body=True)
    engine.give("http.request", body=body[5:], more_body=False)
    return engine


@in_loop
async def test_a_file_comes_whole_or_while_it_is_made(models: Path) -> None:
    async with serving(models) as application:
        whole, streamed = (
            post(application, {**GOOD, "stream": False, "seed": 3}),
            post(application, {**GOOD, "seed": 3}),
        )
        await asyncio.gather(whole.task, streamed.task)
        for engine in (whole, streamed):
            assert engine.sent[0]["type"] == "http.response.start" and engine.sent[0]["status"] == 200
            assert engine.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
            assert dict(engine.headers)["x-seed"] == "3"
            assert not {"connection", "transfer-encoding"} & {name for name, _ in engine.headers}
            assert len([name for name, _ in engine.headers if name == "x-request-id"]) == 1
        assert len(whole.body) == 5 * FRAME_BYTES == int(dict(whole.headers)["content-length"])
        assert whole.body == streamed.body
        assert len([message for message in streamed.sent if message.get("body")]) > 1


@in_loop
async def test_headers_that_the_engine_adds_itself_are_left_out(models: Path) -> None:
    async with serving(models, (b"x-request-id",)) as application:
        asked = Engine(application, "http", "/livez")
        asked.give("http.request")
        await asked.task
        assert asked.sent[0]["status"] == 200
        assert "x-request-id" not in dict(asked.headers)


@in_loop
async def test_a_body_without_a_length_is_read_as_it_comes(models: Path) -> None:
    async with serving(models) as application:
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json", "transfer-encoding": "chunked"}
        engine = post(application, GOOD, headers=headers)
        await engine.task
        assert len(engine.body) == 5 * FRAME_BYTES


@in_loop
async def test_what_is_refused_is_refused_before_the_body_is_there(models: Path) -> None:
    async with serving(models) as application:
        for key, length, status in ((f"{KEY}x", 1000, 401), (KEY, 1 << 30, 413)):
            headers = {"authorization": f"Bearer {key}", "content-length": str(length)}
            engine = Engine(application, "http", "/v1/audio/speech", method="POST", headers=headers)
            engine.give("http.request", body=b"{", more_body=True)
            await engine.task  # the rest of the body never comes
            assert engine.sent[0]["status"] == status


@in_loop
async def test_what_no_http_request_may_have_is_answered_400(models: Path) -> None:
    async with serving(models) as application:
        engine = Engine(application, "http", "/livez", headers={"host": "second"})
        await engine.task
        assert engine.sent[0]["status"] == 400
        assert "the request is malformed" in json.loads(engine.body)["message"]


@in_loop
async def test_what_the_engine_has_mounted_it_under_is_no_part_of_the_path(models: Path) -> None:
    async with serving(models) as application:
        for path, root, status in (
            ("/clone/livez", "/clone", 200),
            ("/clone", "/clone", 200),
            ("/livez", "/clone", 200),
            ("/clone/livez", "", 404),
        ):
            engine = Engine(application, "http", path, root_path=root)
            engine.give("http.request")
            await engine.task
            assert engine.sent[0]["status"] == status
        engine = Engine(application, "http", "/v1/audio/voices", query_string=b"format=names", raw_path=None)
        engine.give("http.request")
        await engine.task
        assert isinstance(json.loads(engine.body)["voices"][0], str)


@in_loop
async def test_the_log_has_the_client_and_not_the_engine(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "qwen3_tts_edge")
    async with serving(models, trusted_proxies="192.0.2.0/24") as application:
        for client, forwarded in ((["198.51.100.9", 1], "203.0.113.5"), (["192.0.2.7", 1], "203.0.113.5")):
            headers = {"authorization": f"Bearer {KEY}", "x-forwarded-for": forwarded}
            engine = Engine(application, "http", "/v1/models", headers=headers, client=client)
            engine.give("http.request")
            await engine.task
    lines = [record.message for record in caplog.records if record.message.startswith("request ")]
    assert ["client=198.51.100.9" in line for line in lines] == [True, False]
    assert ["client=203.0.113.5" in line for line in lines] == [False, True]


@pytest.mark.parametrize("cancelled", [False, True], ids=["disconnect", "cancelled"])
@pytest.mark.parametrize("stream", [False, True])
@in_loop
async def test_a_client_that_leaves_frees_its_row(
    models: Path, monkeypatch: pytest.MonkeyPatch, stream: bool, cancelled: bool
) -> None:
    monkeypatch.setenv(FRAME_SECONDS, "0.02")
    async with serving(models) as application:
        first = post(application, {**LONG, "stream": stream, "seed": 1})
        await until(lambda: happened(models, "submitted"), "it is submitted")
        if stream:
            await until(lambda: first.body, "audio comes")
        waiting = post(application, {**LONG, "stream": stream, "seed": 2})
        await until(lambda: len(happened(models, "submitted")) == 2, "another one waits")
        for engine in (waiting, first):
            engine.task.cancel() if cancelled else engine.give("http.disconnect")
        await until(lambda: len(happened(models, "dropped")) == 2, "both rows are free")
        await asyncio.wait([first.task, waiting.task])
        assert first.task.cancelled() is waiting.task.cancelled() is cancelled
        assert not waiting.sent
        assert not any(message.get("more_body") is False for message in first.sent)
        assert all(noted["frames"] < 2000 for noted in happened(models, "dropped"))


@in_loop
async def test_an_answer_that_breaks_off_is_no_whole_one(models: Path) -> None:
    async with serving(models) as application:
        engine = post(application, {**LONG, "input": "fail-later"})
        with pytest.raises(BrokenOff):
            await engine.task
        assert engine.sent[0]["status"] == 200 and engine.sent[-1]["more_body"] is True


CONFIG = {"type": "session.config", "voice": "serena", "response_format": "pcm", "stream_audio": True}


def dial(application: AsgiApplication, **scope: Any) -> Engine:
    engine = Engine(application, "websocket", "/v1/audio/speech/stream", **scope)
    engine.give("websocket.connect")
    return engine


def say(engine: Engine, *messages: dict[str, Any]) -> None:
    for message in messages:
        engine.give("websocket.receive", text=json.dumps(message))


def heard(engine: Engine, kind: str) -> bool:
    return any(json.loads(message.get("text") or "{}").get("type") == kind for message in engine.sent)


@in_loop
async def test_a_websocket_speaks_and_ends_as_either_side_says(models: Path) -> None:
    async with serving(models) as application:
        engine = dial(application, subprotocols=["speech-stream"])
        text = {"type": "input.text", "text": "Hello there."}
        say(engine, {**CONFIG, "exact_frames": 4}, text, {"type": "input.done"})
        await until(lambda: heard(engine, "session.done"), "it has spoken")
        accepted = engine.sent[0]
        assert (accepted["type"], accepted["subprotocol"]) == ("websocket.accept", "speech-stream")
        assert dict(accepted["headers"])[b"x-request-id"]
        assert sum(len(message.get("bytes") or b"") for message in engine.sent) == 4 * FRAME_BYTES
        say(engine, {"type": "session.close"})
        await engine.task
        assert engine.sent[-1] == {"type": "websocket.close", "code": 1000, "reason": ""}
        unconfigured = dial(application)
        say(unconfigured, text)
        await unconfigured.task
        assert unconfigured.sent[-1]["code"] == 1008


@pytest.mark.parametrize("code", [1001, 1005, 1006, 999])
@in_loop
async def test_a_websocket_whose_client_leaves_frees_its_row(
    models: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setenv(FRAME_SECONDS, "0.02")
    async with serving(models) as application:
        engine = dial(application)
        say(engine, {**CONFIG, "exact_frames": 2000}, {"type": "input.text", "text": "Hello."}, {"type": "input.done"})
        await until(lambda: any(message.get("bytes") for message in engine.sent), "audio comes")
        engine.give("websocket.disconnect", code=code)
        await until(lambda: happened(models, "dropped"), "its row is free")
        await engine.task
        assert not any(message["type"] == "websocket.close" for message in engine.sent), "nobody is there to hear it"


@pytest.mark.parametrize("words", [1, 500])
@in_loop
async def test_a_client_that_leaves_is_heard_while_the_server_takes_nothing(
    models: Path, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    """Its connection to the server is full, as that of one that has said much to a server that is busy."""
    taken = asyncio.Event()

    async def send(connection: ClientConnection, message: str) -> None:
        taken.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ClientConnection, "send", send)
    async with serving(models) as application:
        engine = dial(application)
        say(engine, CONFIG, *[{"type": "input.text", "text": "Hello. "}] * words)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await taken.wait()
            engine.give("websocket.disconnect", code=1001)
            await engine.task
        assert [message["type"] for message in engine.sent] == ["websocket.accept"], "nobody is there to hear more"


@in_loop
async def test_no_more_is_taken_from_a_client_than_the_server_may_take_in_a_while(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = asyncio.Event()
    gate = asyncio.Event()
    sent: list[str] = []

    async def send(connection: ClientConnection, message: str) -> None:
        taken.set()
        await gate.wait()
        sent.append(message)

    monkeypatch.setattr(ClientConnection, "send", send)
    async with serving(models) as application:
        engine = dial(application)
        words = [{"type": "input.text", "text": f"{number} {'x' * 10_000}"} for number in range(100)]
        say(engine, *words)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await taken.wait()
            await until(lambda: engine.left <= 100 - MOST_SAID // 10_300, "what there is room for is taken")
            await asyncio.sleep(0)
            assert engine.left >= 100 - MOST_SAID // 10_000 - 2
            gate.set()
            await until(lambda: len(sent) == 100, "all is handed over in the end")
            assert sent == [json.dumps(word) for word in words]
            engine.give("websocket.disconnect", code=1001)
            await engine.task


@in_loop
async def test_a_websocket_that_is_refused_says_why_where_the_engine_lets_it(models: Path) -> None:
    async with serving(models) as application:
        told = dial(application, headers={}, extensions={"websocket.http.response": {}})
        mute = dial(application, headers={})
        await asyncio.gather(told.task, mute.task)
        start, body = told.sent
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
        assert json.loads(body["body"])["error"]["code"] == "invalid_api_key"
        assert mute.sent == [{"type": "websocket.close", "code": 1008}]


@in_loop
async def test_its_life_begins_when_it_can_speak_and_ends_when_all_is_said(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = models.parent / "gate"
    monkeypatch.setenv(GATE, str(gate))
    monkeypatch.setenv(FRAME_SECONDS, "0.02")
    application = make(models)
    early = Engine(application, "http", "/livez")
    early.give("http.request")
    await early.task
    assert early.sent[0]["status"] == 503
    life = Engine(application, "lifespan", "")
    life.give("lifespan.startup")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with pytest.raises(NotReady) as caught:
                await application.check_ready()
            assert caught.value.passing
            if "is being loaded" in str(caught.value):
                break
            await asyncio.sleep(0.01)
    assert life.sent == []
    gate.touch()
    await until(lambda: life.sent, "it is ready")
    assert life.sent == [{"type": "lifespan.startup.complete"}]
    await application.check_ready()
    streaming = post(application, {**GOOD, "exact_frames": 50})
    await until(lambda: streaming.body, "audio comes")
    life.give("lifespan.shutdown")
    await life.task
    assert life.sent[-1] == {"type": "lifespan.shutdown.complete"}
    await streaming.task
    assert len(streaming.body) == 50 * FRAME_BYTES
    late = Engine(application, "http", "/livez")
    late.give("http.request")
    await late.task
    assert late.sent[0]["status"] == 503


@in_loop
async def test_who_waits_for_a_server_that_ends_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GATE, str(models.parent / "gate"))
    application = make(models)
    starting = asyncio.create_task(application.start())

    async def loading() -> bool:
        with pytest.raises(NotReady) as caught:
            await application.check_ready()
        return "is being loaded" in str(caught.value)

    while not await loading():
        await asyncio.sleep(0.01)
    await application.stop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(NotReady, match="the server has ended"):
            await starting


@in_loop
async def test_a_server_that_ends_a_connection_without_an_answer(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is there before the request is sent, or comes in its place."""
    application = make(models)
    other = str(models.parent / "other")
    monkeypatch.setattr(application, "_path", other)
    connected = asyncio.open_unix_connection

    async def connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connected(path)
        reader.feed_eof()
        return reader, writer

    async with await asyncio.start_unix_server(lambda reader, writer: writer.close(), other):
        socket = dial(application)
        await socket.task
        assert socket.sent == [{"type": "websocket.close", "code": 1011}]
        monkeypatch.setattr(asyncio, "open_unix_connection", connect)
        asked = Engine(application, "http", "/livez")
        asked.give("http.request")
        await asked.task
        assert asked.sent[0]["status"] == 503


@in_loop
async def test_who_is_not_answered_is_told_when_the_server_has_ended(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = asyncio.Event()

    async def keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await reader.read()
        writer.close()

    async with serving(models) as application:
        other = str(models.parent / "other")
        monkeypatch.setattr(application, "_path", other)
        async with await asyncio.start_unix_server(keep_silent, other):
            asked = Engine(application, "http", "/livez")
            asked.give("http.request")
            await accepted.wait()
            await application.stop()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asked.task
    assert asked.sent[0]["status"] == 503


@in_loop
async def test_a_start_that_cannot_succeed_fails(models: Path) -> None:
    (models / "custom" / "talker.onnx").write_bytes(bytes(1000))
    application = make(models)
    life = Engine(application, "lifespan", "")
    life.give("lifespan.startup")
    await life.task
    (failed,) = life.sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "custom: talker.onnx is damaged" in failed["message"]
    await application.stop()


def test_without_a_key_there_is_no_application(models: Path) -> None:
    with pytest.raises(
        CommandError, match="there is no key: set KW_SECRET_API_KEY or KW_API_KEYS_FILE, or KW_AUTH=off"
    ):
        asgi.open_application(Settings(models_dir=models), FakeEngine.load)


@in_loop
async def test_for_all_it_answers_by_any_name(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.log.configure", lambda: None)  # pytest's own handlers would go
    monkeypatch.setattr("sys.setswitchinterval", lambda seconds: None)
    monkeypatch.setattr("server.models.memory.spare_what_is_loaded", lambda: None)
    application = asgi.open_application(Settings(models_dir=models, auth="off", host="127.0.0.1"), FakeEngine.load)
    Sanic.get_app("qwen3-tts-edge").config.TOUCHUP = False
    await application.start()
    engine = Engine(application, "http", "/v1/models", headers={})
    engine.give("http.request")
    await engine.task
    assert engine.sent[0]["status"] == 200
    await application.stop()
    Sanic.unregister_app(Sanic.get_app("qwen3-tts-edge"))


@pytest.mark.parametrize("framing", [(b"content-length", b"1000000"), (b"transfer-encoding", b"chunked")])
@in_loop
async def test_a_body_that_comes_at_once_is_handed_on_piece_by_piece(framing: tuple[bytes, bytes]) -> None:
    """All of it had been copied twice before the server had looked at its key."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[(b"host", b"x"), framing]))
    events: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"x" * 1_000_000, "more_body": False},
        {"type": "http.disconnect"},
    ]
    written: list[int] = []
    drained: list[int] = []

    class Writer:
        def write(self, data: bytes) -> None:
            written.append(len(data))

        async def drain(self) -> None:
            drained.append(sum(written))

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    await _ask(connection, cast(asyncio.StreamWriter, Writer()), receive)
    assert sum(written) >= 1_000_000
    assert max(written) < 70_000
    assert max(after - before for before, after in pairwise([0, *drained])) < 70_000
