"""What `server.http.connections`, `.receiving` and `.lifecycle` use of Sanic's insides, one test for each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar

import pytest
from sanic import Request
from sanic.application.state import ApplicationServerInfo
from sanic.exceptions import BadRequest
from sanic.http import Http, Stage
from sanic.http.constants import HTTP
from sanic.http.http1 import HTTP_CONTINUE
from sanic.response import HTTPResponse, text
from sanic.server import HttpProtocol
from sanic.server.protocols.base_protocol import SanicProtocol

from tests.server.http import test_sanic
from tests.server.http.test_sanic import GET, ask, make_app, run, serving

several_apps = test_sanic.several_apps


class OwnHttp(Http):
    """Notes what `server.http.receiving.GuardedHttp` overrides, in the order of the calls."""

    __slots__ = ()
    noted: ClassVar[list[tuple[str, Stage]]] = []

    async def http1_request_header(self) -> None:
        self.noted.append(("head", self.stage))
        while b"\r\n\r\n" not in self.recv_buffer:
            await self._receive_more()
        if self.recv_buffer.startswith(b"BAD"):
            raise BadRequest("bad")
        self.recv_buffer[:] = self.recv_buffer.replace(b"x-wrong", b"x-right")
        await super().http1_request_header()

    async def read(self) -> bytes | None:
        self.noted.append((f"read {self.request_body} {self.request_bytes} {self.request_bytes_left}", self.stage))
        return await super().read()

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        self.noted.append((f"answer {self.expecting_continue}", self.stage))
        self.expecting_continue = False
        await super().http1_response_header(data, end_stream)

    async def error_response(self, exception: Exception) -> None:
        self.noted.append((type(exception).__name__, self.stage))
        await super().error_response(exception)


class OwnProtocol(HttpProtocol):
    """Does so for `server.http.connections.GuardedProtocol`."""

    __slots__ = ()
    HTTP_CLASS = OwnHttp

    @property
    def request_handler(self) -> Callable[[Request], Awaitable[None]]:
        return self.handle

    @request_handler.setter
    def request_handler(self, handler: object) -> None:
        assert handler == self.app.handle_request

    def connection_made(self, transport: Any) -> None:
        SanicProtocol.connection_made(self, transport)
        self.recv_buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        assert self.keep_alive_timeout == self.app.config.KEEP_ALIVE_TIMEOUT
        self._task = self._task or self.loop.create_task(self.connection_task())
        super().data_received(data)

    async def handle(self, request: Request) -> None:
        await self.app.handle_request(request)
        OwnHttp.noted.append((f"handled {bool(request.stream.request_body)}", self.http.stage))

    def close(self, timeout: float | None = None) -> None:
        OwnHttp.noted.append(("close", Stage.IDLE))
        assert self.http is None, "the task of the connection is over"
        super().close(timeout)


@pytest.fixture
def noted() -> Iterator[list[tuple[str, Stage]]]:
    OwnHttp.noted.clear()
    yield OwnHttp.noted


def test_a_protocol_of_ours_sees_heads_bodies_and_answers(noted: list[tuple[str, Stage]]) -> None:
    """`GuardedHttp` looks at a head in `recv_buffer` before Sanic parses it, and at each chunk in `read`.

    `read` is called with the line end before the chunk's size still in the buffer. What the wrapped
    `request_handler` leaves of a body is not consumed before the wrapper returns.
    """
    app = make_app()
    app.route("/", methods=["POST"], ignore_body=True)(lambda request: text(request.headers["x-right"]))

    @app.post("/read")
    async def read(request: Request) -> HTTPResponse:
        return text(request.body.decode())

    async def test() -> None:
        async with serving(app, OwnProtocol) as (_, port):
            head = b"host: x\r\nconnection: close\r\nx-wrong: yes\r\n"
            answer = await ask(
                port, b"POST / HTTP/1.1\r\n" + head + b"content-length: 2\r\nexpect: 100-continue\r\n\r\nhi"
            )
            assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"yes"), "no 100 Continue goes before it"
            assert noted[:3] == [
                ("head", Stage.REQUEST),
                ("answer True", Stage.HANDLER),
                ("handled True", Stage.IDLE),
            ]
            assert ("close", Stage.IDLE) in noted
            noted.clear()
            chunks = b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
            assert (await ask(port, b"POST /read HTTP/1.1\r\n" + head + chunks)).endswith(b"hi")
            assert noted[1:3] == [("read chunked 0 0", Stage.HANDLER), ("read chunked 2 0", Stage.HANDLER)]

    run(test)
    assert HTTP_CONTINUE.startswith(b"HTTP/1.1 100 ")


def test_what_a_head_raises_is_answered_and_closes(noted: list[tuple[str, Stage]]) -> None:
    """`GuardedHttp.error_response` knows by the stage that there is only half a request."""
    app = make_app()
    app.get("/")(lambda request: text("x"))

    async def test() -> None:
        async with serving(app, OwnProtocol) as (_, port):
            answer = await ask(port, b"BAD\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400 ") and b"\r\nconnection: close\r\n" in answer

    run(test)
    assert noted[1] == ("BadRequest", Stage.REQUEST)


def test_a_connection_tells_who_is_there_and_limits_heads(noted: list[tuple[str, Stage]]) -> None:
    """IPv6 addresses come in brackets; the limit on heads is a class attribute that the server sets."""
    app = make_app()
    app.get("/")(lambda request: text(request.ip))

    async def test() -> None:
        async with serving(app, OwnProtocol) as (_, port):
            assert (await ask(port, GET)).endswith(b"127.0.0.1")

    run(test)
    assert 0 < OwnHttp.HEADER_MAX_SIZE <= Http.HEADER_CEILING


def test_classes_that_sanic_makes_have_slots() -> None:
    """Its metaclass adds empty slots, so that `GuardedHttp` and `GuardedProtocol` must name theirs."""
    own = type(HttpProtocol)("Own", (HttpProtocol,), {"__slots__": ()})
    assert "__dict__" not in dir(own)
    assert "__dict__" not in dir(OwnHttp)


def test_with_one_version_no_empty_header_is_sent() -> None:
    """`server.http.app` says that there is HTTP/1.1 only; Sanic then leaves `alt-svc` out."""
    app = make_app()
    app.state.server_info.append(ApplicationServerInfo({"version": HTTP.VERSION_1}))
    app.get("/")(lambda request: text("x"))

    async def test() -> None:
        async with serving(app) as (_, port):
            assert b"alt-svc" not in await ask(port, GET)

    run(test)


def test_one_app_may_have_several_servers() -> None:
    """`server.http.lifecycle` makes one for each address, and runs the app's events with the first."""
    app = make_app()
    app.get("/")(lambda request: text("x"))

    async def test() -> None:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        not_yet = {"start_serving": False}
        servers: list[Any] = [await app.create_server(sock=sock, asyncio_server_kwargs=not_yet) for sock in sockets]
        await servers[0].startup()
        await servers[0].before_start()
        for server in servers:
            await server.start_serving()
        for sock in sockets:
            assert (await ask(sock.getsockname()[1], GET)).startswith(b"HTTP/1.1 200 ")
        await asyncio.gather(*(server.close() for server in servers))

    run(test)
