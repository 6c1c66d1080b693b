"""A few of the requests that come together begin in a round, health waits for no turn, and what ended is freed."""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import errno
import gc
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sanic import Request, Sanic
from sanic.response import HTTPResponse, text

from server.audio.encoders import PcmEncoder
from server.audio.pcm import Samples
from server.cli.startup import open_pool
from server.config import Settings
from server.http import lifecycle
from server.http import rounds as rounds_of_loop
from server.http.app import REQUESTS_A_ROUND, create_app
from server.http.capacity import OpenConnections, Turns
from server.http.connections import GuardedProtocol
from server.http.lifecycle import ACCEPTED_AT_A_TIME
from server.http.routes import encoding
from server.metrics import Metrics
from server.models.catalogue import Bundles
from tests.server.clock import until
from tests.server.fakes import FakeEngine
from tests.server.http import test_sanic
from tests.server.http.test_sanic import ask, run
from tests.server.running import PATIENCE_SECONDS

several_apps = test_sanic.several_apps


def test_so_many_begin_in_a_round_in_the_order_in_which_they_came() -> None:
    async def test() -> None:
        turns = Turns(3)
        rounds = 0
        begun: list[tuple[int, int]] = []

        async def take(number: int) -> None:
            await turns.take()
            begun.append((number, rounds))

        tasks = [asyncio.create_task(take(number)) for number in range(20)]
        while any(not task.done() for task in tasks):
            await asyncio.sleep(0)
            rounds += 1
        assert [number for number, _ in begun] == list(range(20))
        counts = [sum(round_ == at for _, at in begun) for round_ in range(rounds)]
        assert max(counts) == 3
        assert sum(bool(count) for count in counts) == 7
        await turns.take()
        assert len(begun) == 20

    run(test)


def test_those_who_leave_the_line_take_no_turn() -> None:
    async def test() -> None:
        turns = Turns(1)
        await turns.take()
        leaving, staying = (asyncio.create_task(turns.take()) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await staying

    run(test)


@pytest.fixture
def app(tmp_path: Any) -> Iterator[Sanic[Any, Any]]:
    settings = Settings(models_dir=tmp_path)
    metrics = Metrics()
    app = create_app(settings, open_pool(settings, Bundles([], None), FakeEngine.load, metrics), {}, metrics)
    yield app
    Sanic.unregister_app(app)


class ClosedTurns(Turns):
    """Gives nobody a turn until `opened` is set, and counts who waits for one."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.waiting = 0
        self.opened = asyncio.Event()

    async def take(self) -> None:
        self.waiting += 1
        await self.opened.wait()


def test_few_requests_end_in_a_round_when_their_clients_leave_together() -> None:
    app = test_sanic.make_app()
    app.ctx.turns, app.ctx.connections = Turns(3), OpenConnections(100)
    begun, rounds = 0, 0
    ended: list[int] = []

    @app.get("/")
    async def wait(request: Request) -> None:
        nonlocal begun
        begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(rounds)

    async def test() -> None:
        nonlocal rounds
        async with test_sanic.serving(app, GuardedProtocol) as (_, port):
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
            for client in clients:
                client.sendall(request("/"))
            await until(lambda: begun == len(clients), "all requests begin")
            for client in clients:
                client.close()
            while len(ended) < len(clients):
                await asyncio.sleep(0)
                rounds += 1
        assert max(ended.count(round_) for round_ in ended) == 3

    run(test)


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()


def test_health_waits_for_no_turn_and_all_else_does(app: Sanic[Any, Any]) -> None:
    async def test() -> None:
        app.ctx.turns = turns = ClosedTurns(REQUESTS_A_ROUND)
        async with test_sanic.serving(app, GuardedProtocol) as (_, port):
            for path in ("/livez", "/readyz", "/health"):
                assert (await ask(port, request(path))).startswith(b"HTTP/1.1 ")
            assert turns.waiting == 0
            for number, path in enumerate(("/v1/models", "/livezz", "/metrics"), 1):
                asking = asyncio.create_task(ask(port, request(path)))
                await until(lambda number=number: turns.waiting == number, f"{path} waits")  # type: ignore[misc]
                asking.cancel()

    run(test)


def test_little_of_a_body_is_received_before_its_turn(app: Sanic[Any, Any]) -> None:
    """Its key has not been looked at by then; hundreds may wait so, each with megabytes to send."""

    async def test() -> None:
        app.ctx.turns = turns = ClosedTurns(REQUESTS_A_ROUND)
        body = b"x" * 1_000_000
        head = f"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        async with test_sanic.serving(app, GuardedProtocol) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + body)
            await until(lambda: turns.waiting, "the request waits")
            (connection,) = server.connections
            await until(lambda: not connection.transport.is_reading(), "no more is received")
            assert len(connection.recv_buffer) < len(body) / 2
            turns.opened.set()
            assert await reader.readuntil(b"the body is not valid JSON")
            assert connection.transport.is_reading(), "the server notices when the client leaves"
            writer.close()

    run(test)


def test_little_of_a_body_is_received_while_others_are_encoded(
    app: Sanic[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    class Slow(PcmEncoder):
        def encode(self, samples: Samples) -> bytes:
            go_on.wait(PATIENCE_SECONDS)
            return super().encode(samples)

    monkeypatch.setattr(encoding, "make_encoder", lambda *_: Slow())

    async def test() -> None:
        body = bytes(app.config.REQUEST_BUFFER_SIZE // 2)
        head = f"POST /v1/audio/encode HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        async with test_sanic.serving(app, GuardedProtocol) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + body)
            await until(lambda: server.connections, "it is connected")
            (connection,) = server.connections
            await until(lambda: not connection.transport.is_reading(), "no more is received")
            assert len(connection.recv_buffer) < len(body) / 2
            go_on.set()
            answer = await reader.readuntil(b"\r\n\r\n")
            assert f"content-length: {len(body)}\r\n".encode() in answer
            assert connection.transport.is_reading(), "the server notices when the client leaves"
            writer.close()

    run(test)


def test_a_connection_that_is_closed_is_freed_at_once(app: Sanic[Any, Any]) -> None:
    """It had been kept for as long as its client might have gone on sending; thousands of strangers took 29 MB so."""
    head = b"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\ncontent-length: 20000000\r\n\r\n{"

    async def test() -> None:
        async with test_sanic.serving(app, GuardedProtocol) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            await reader.read()
            (connection,) = server.connections
            assert connection.unread, "its client might go on sending"
            del connection
            writer.transport.abort()
            await until(lambda: not server.connections, "the connection is closed")
            gc.collect()
            assert not [kept for kept in gc.get_objects() if isinstance(kept, GuardedProtocol)]

    run(test)


def test_a_connection_that_says_nothing_costs_no_task_and_is_closed_in_time() -> None:
    """700 of them were as many tasks, each with its coroutines and timers, to begin and to cancel in the event loop."""
    app = test_sanic.make_app()
    app.ctx.turns, app.ctx.connections = Turns(1), OpenConnections(100)
    app.config.KEEP_ALIVE_TIMEOUT = 1

    @app.get("/")
    async def answer(request: Request) -> HTTPResponse:
        return text("here")

    async def test() -> None:
        async with test_sanic.serving(app, GuardedProtocol) as (server, port):
            before = asyncio.all_tasks()
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
            await until(lambda: len(server.connections) == len(clients), "all are connected")
            await until(lambda: asyncio.all_tasks() == before, "asyncio has accepted them, and nothing else goes on")
            late = clients.pop()
            late.sendall(request("/"))
            late.setblocking(False)
            assert (await asyncio.get_running_loop().sock_recv(late, 1000)).endswith(b"here")
            for client in clients:
                client.setblocking(False)
                assert not await asyncio.get_running_loop().sock_recv(client, 1), "the server closes it"
            late.close()

    run(test)


def test_few_connections_are_closed_in_a_round_when_their_clients_reset_them_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """700 of them were two rounds of the event loop, of 6 to 7 ms, in which nothing else had its turn."""
    app = test_sanic.make_app()
    app.ctx.turns, app.ctx.connections = Turns(1), OpenConnections(1000)
    app.get("/")(lambda request: text(""))
    rounds = 0
    lost: list[int] = []
    connection_lost = GuardedProtocol.connection_lost

    def note(self: GuardedProtocol, error: Exception | None) -> None:
        lost.append(rounds)
        connection_lost(self, error)

    monkeypatch.setattr(GuardedProtocol, "connection_lost", note)
    monkeypatch.setattr(rounds_of_loop, "EVENTS_A_ROUND", 8)

    async def test() -> None:
        nonlocal rounds
        async with test_sanic.serving(app, GuardedProtocol) as (server, port):
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
            await until(lambda: len(server.connections) == len(clients), "all are connected")
            for client in clients:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
            while len(lost) < len(clients):
                await asyncio.sleep(0)
                rounds += 1
        assert max(lost.count(round_) for round_ in lost) <= 8

    with asyncio.Runner(loop_factory=lifecycle.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), PATIENCE_SECONDS))


def test_a_client_that_has_reset_its_connection_is_no_error(
    app: Sanic[Any, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write_eof(transport: asyncio.WriteTransport) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(asyncio.selector_events._SelectorSocketTransport, "write_eof", write_eof)

    async def test() -> None:
        async with test_sanic.serving(app, GuardedProtocol) as (server, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\ncontent-length: 20000000\r\n\r\n{")
            await until(lambda: server.connections, "it is connected")
            await until(lambda: not server.connections, "it is forgotten")
            writer.close()

    run(test)
    assert "Closing failed" not in caplog.text


def test_few_connections_are_accepted_in_a_round(app: Sanic[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds that come together are accepted in several rounds, between which other events have their turn."""
    made: list[int] = []
    rounds = 0
    connection_made = GuardedProtocol.connection_made

    def note(self: GuardedProtocol, transport: Any) -> None:
        made.append(rounds)
        connection_made(self, transport)

    monkeypatch.setattr(GuardedProtocol, "connection_made", note)

    async def test() -> None:
        nonlocal rounds
        sock = socket.create_server(("127.0.0.1", 0), backlog=100)
        clients = [socket.create_connection(sock.getsockname()) for _ in range(5 * ACCEPTED_AT_A_TIME)]
        stop = asyncio.Event()
        serving = asyncio.create_task(lifecycle._serve(app, [sock], lambda: None, stop, 0.0))
        while len(made) < len(clients):
            await asyncio.sleep(0)
            rounds += 1
        # From Python 3.14 on asyncio accepts one more than it is told.
        assert max(made.count(round_) for round_ in made) <= ACCEPTED_AT_A_TIME + 1
        for client in clients:
            client.close()
        stop.set()
        await serving

    run(test)
