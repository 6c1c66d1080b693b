"""Every inside of Sanic that the server relies on and that Sanic does not promise, one test for each.

Those that connections build on are in `test_sanic_connections.py`. An upgrade that changes one of them fails here, and
says which: `pyproject.toml` bounds the versions, and these two files are what to run before the bound moves.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from sanic import Request, Sanic
from sanic.config import DEFAULT_CONFIG
from sanic.exceptions import BadURL, MethodNotAllowed, RequestCancelled, RequestTimeout
from sanic.handlers import ErrorHandler
from sanic.http import Http
from sanic.response import HTTPResponse, text
from sanic.server import HttpProtocol
from sanic.server.async_server import AsyncioServer

from tests.server.running import PATIENCE_SECONDS

_NAMES = count()


@pytest.fixture(autouse=True)
def several_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, Sanic rewrites its own methods for the first app that starts and cannot do so for a second."""
    monkeypatch.setattr(Sanic, "test_mode", True)


def make_app(**options: Any) -> Sanic:
    app = Sanic(f"contract-{next(_NAMES)}", configure_logging=False, **options)
    app.config.AUTO_EXTEND = app.config.MOTD = app.config.ACCESS_LOG = False
    return app


@asynccontextmanager
async def serving(app: Sanic, protocol: type[HttpProtocol] | None = None) -> AsyncIterator[tuple[Any, int]]:
    """Do what `server.http.lifecycle` does, call for call; gives Sanic's server and its port."""
    sock = socket.create_server(("127.0.0.1", 0))
    not_yet = {"start_serving": False}
    server: Any = await app.create_server(sock=sock, protocol=protocol, asyncio_server_kwargs=not_yet)
    assert isinstance(server, AsyncioServer)
    await server.startup()
    await server.before_start()
    await server.start_serving()
    await server.after_start()
    try:
        yield server, sock.getsockname()[1]
    finally:
        await server.before_stop()
        closing = server.close()
        for connection in tuple(server.connections):
            connection.abort()
        await closing
        await server.after_stop()


async def ask(port: int, request: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await test()

    asyncio.run(bounded())


GET = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


CONFIGURED = {
    "AUTO_EXTEND",
    "MOTD",
    "ACCESS_LOG",
    "REQUEST_MAX_SIZE",
    "REQUEST_BUFFER_SIZE",
    "REQUEST_TIMEOUT",
    "RESPONSE_TIMEOUT",
}


def test_the_configuration_has_the_names_that_we_set() -> None:
    """`server.http.app._configure` sets them; a name that Sanic does not know would be taken and do nothing."""
    assert set(DEFAULT_CONFIG) >= CONFIGURED


def test_listeners_run_in_this_order() -> None:
    """The default model loads before the first request; engines close after the last."""
    seen = []
    app = make_app()
    for name in ("before_server_start", "after_server_start", "before_server_stop", "after_server_stop"):

        async def note(app: Sanic, name: str = name) -> None:
            seen.append(name)

        app.listener(name)(note)

    async def test() -> None:
        async with serving(app):
            assert seen == ["before_server_start", "after_server_start"]

    app.get("/")(lambda request: text("x"))
    run(test)
    assert seen[2:] == ["before_server_stop", "after_server_stop"]


def test_a_request_keeps_the_id_that_a_property_caches() -> None:
    """`SpeechHttpRequest.id` replaces Sanic's and caches in `_id`, which is None at first."""

    class Own(Request):
        @property
        def id(self) -> str:
            assert self._id is None
            return "mine"

    app = make_app(request_class=Own)
    app.get("/")(lambda request: text(request.id))

    async def test() -> None:
        async with serving(app) as (_, port):
            assert (await ask(port, GET)).endswith(b"mine")

    run(test)


def test_a_url_that_cannot_be_parsed_is_made_a_request_twice() -> None:
    """Sanic answers `BadURL` with a request of the same URL: `SpeechHttpRequest` must give that one another URL.

    Sanic passes the URL by the name `url_bytes`.
    """
    made = []

    class Own(Request):
        def __init__(self, url_bytes: bytes, *arguments: Any, **named: Any) -> None:
            made.append(url_bytes)
            try:
                super().__init__(url_bytes, *arguments, **named)
            except BadURL:
                super().__init__(b"/no-url", *arguments, **named)

    app = make_app(request_class=Own)
    app.get("/")(lambda request: text("x"))

    async def test() -> None:
        async with serving(app) as (_, port):
            answer = await ask(port, GET.replace(b"GET /", b"GET http://[/"))
            assert answer.startswith(b"HTTP/1.1 404 ")

    run(test)
    assert made


def test_the_body_is_received_before_middleware_and_through_this_method() -> None:
    """`SpeechHttpRequest.receive_body` bounds the time of the body; what it raises is answered."""
    order = []

    class Own(Request):
        async def receive_body(self) -> None:
            order.append("body")
            await super().receive_body()

    app = make_app(request_class=Own)

    @app.on_request
    async def middleware(request: Request) -> None:
        order.append("middleware")

    @app.post("/")
    async def handler(request: Request) -> HTTPResponse:
        return text(request.body.decode())

    async def test() -> None:
        async with serving(app) as (_, port):
            request = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"
            assert (await ask(port, request)).endswith(b"hi")

    run(test)
    assert order == ["body", "middleware"]


def test_a_body_that_is_given_up_is_not_waited_for() -> None:
    """With `request_body` None and `keep_alive` False on its stream, the answer goes out and the connection closes."""

    class Own(Request):
        async def receive_body(self) -> None:
            assert isinstance(self.stream, Http)
            assert self.stream.request_body
            self.stream.request_body = None
            self.stream.keep_alive = False
            raise RequestTimeout("given up")

    app = make_app(request_class=Own)
    app.post("/")(lambda request: text("x"))

    async def test() -> None:
        async with serving(app) as (_, port):
            answer = await ask(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf")
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"\r\nconnection: close\r\n" in answer

    run(test)


def test_keep_alive_may_be_switched_off_by_response_middleware() -> None:
    """While the server drains, an answer closes its connection; errors pass through the same middleware."""
    app = make_app()

    @app.on_response
    async def middleware(request: Request, response: HTTPResponse) -> None:
        request.stream.keep_alive = False
        response.headers["x-seen"] = "1"

    app.get("/")(lambda request: text("x"))

    async def test() -> None:
        async with serving(app) as (_, port):
            for path in (b"/", b"/nothing"):
                answer = await ask(port, b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n")
                assert b"\r\nconnection: close\r\n" in answer and b"\r\nx-seen: 1\r\n" in answer

    run(test)


def test_a_route_tells_its_path_and_its_marks() -> None:
    """`ctx_public` opens a route, and the log is quiet about some paths."""
    app = make_app()
    app.add_route(lambda request: text(f"{request.route.path} {request.route.ctx.public}"), "/a", ctx_public=True)

    async def test() -> None:
        async with serving(app) as (_, port):
            assert (await ask(port, GET.replace(b"GET /", b"GET /a"))).endswith(b"a True")

    run(test)


def test_a_wrong_method_names_the_right_ones() -> None:
    """`JsonErrors` answers OPTIONS from the `Allow` header of Sanic's exception."""
    app = make_app()
    found = []

    class Errors(ErrorHandler):
        def default(self, request: Request, exception: Exception) -> HTTPResponse:
            found.append(exception)
            return text("x", status=405)

    app.error_handler = Errors()
    app.get("/")(lambda request: text("x"))

    async def test() -> None:
        async with serving(app) as (_, port):
            await ask(port, GET.replace(b"GET", b"PUT"))

    run(test)
    (error,) = found
    assert isinstance(error, MethodNotAllowed)
    assert error.headers["Allow"] == "GET"


def test_a_connection_is_listed_and_busy_only_while_it_has_a_request() -> None:
    """Draining waits for connections whose `http` is true, closes the idle ones, and aborts the rest."""
    app = make_app()
    begun, release = asyncio.Event(), asyncio.Event()

    @app.get("/")
    async def handler(request: Request) -> HTTPResponse:
        begun.set()
        await release.wait()
        return text("x")

    async def test() -> None:
        async with serving(app) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await begun.wait()
            (connection,) = server.connections
            assert connection.http
            release.set()
            await reader.readuntil(b"\r\n\r\nx")
            while connection.http:
                await asyncio.sleep(0)
            connection.close()
            assert await reader.read() == b""
            while server.connections:
                await asyncio.sleep(0)
            writer.close()

    run(test)


def test_the_task_of_a_lost_connection_is_cancelled() -> None:
    """So a client that leaves stops its speech; aborting the transport of a request has the same end."""
    app = make_app()
    ended = []
    begun, over = asyncio.Event(), asyncio.Event()

    @app.get("/<how>")
    async def handler(request: Request, how: str) -> None:
        begun.set()
        if how == "abort":
            request.transport.abort()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            ended.append(error)
            raise
        finally:
            over.set()

    async def test() -> None:
        async with serving(app) as (_, port):
            for how in (b"leave", b"abort"):
                begun.clear()
                over.clear()
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(GET.replace(b"GET /", b"GET /" + how))
                await begun.wait()
                if how == b"leave":
                    writer.transport.abort()
                await over.wait()
                writer.close()

    run(test)
    assert [type(error) for error in ended] == [asyncio.CancelledError] * 2
    assert issubclass(RequestCancelled, BaseException)


def test_sending_waits_for_a_reader_that_does_not_read() -> None:
    """The time without progress of a slow client is measured around `send`, which returns once the rest has drained."""
    app = make_app()
    begun, sent, over = asyncio.Event(), [], asyncio.Event()

    @app.get("/")
    async def handler(request: Request) -> None:
        response = await request.respond(content_type="audio/pcm")
        begun.set()
        try:
            while True:
                await response.send(bytes(1 << 20))
                sent.append(1)
        finally:
            over.set()

    async def test() -> None:
        async with serving(app) as (_, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
            writer.write(GET)
            await begun.wait()
            seen = -1
            while seen != len(sent):
                seen = len(sent)
                await asyncio.sleep(0.3)
            assert not over.is_set()
            writer.transport.abort()
            await over.wait()

    run(test)
    assert len(sent) < 64
