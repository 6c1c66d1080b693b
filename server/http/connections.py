"""Sanic's HTTP/1.1 connections, with bounds on what the connection of a stranger can cost.

`server.http.receiving` receives their requests. How many connections there may be, and whose turn it is, is in
`server.http.capacity`. Every inside of Sanic that this builds on has its test in
`tests/server/http/test_sanic_connections.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

from sanic import Request
from sanic.http import Stage
from sanic.models.server_types import ConnInfo
from sanic.server import HttpProtocol
from sanic.server.protocols.base_protocol import SanicProtocol

from server.errors import TooManyConnectionsError
from server.http.error_answers import body_of_error
from server.http.receiving import GuardedHttp
from server.http.websocket import WebSocket

LINGER_SECONDS = 5.0
"""How long a client may go on sending before its connection is closed: closed at once, it could lose the answer."""

EARLY_BYTES = 1 << 14
"""What is received of a request before it is its turn, in bytes, give or take what arrives at once: until then nobody
has looked at its key, and hundreds of connections may wait."""
_TLS_HANDSHAKE = b"\x16"
"""First byte of a client that speaks TLS (RFC 8446, section 5.1)."""


class GuardedProtocol(HttpProtocol):
    """Serves one connection, by a task that begins with its first byte: of what a connection costs that says nothing,
    and of what the garbage collector has to look at as long as it is open, the task would be half."""

    __slots__ = ("_begun", "_end", "_left", "_lingering", "held", "since", "unread", "websocket")

    HTTP_CLASS = GuardedHttp

    held: ExitStack
    """What the request under way holds until it has ended."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.since = self.loop.time()
        """Time of the event loop since which it waits for a request, or at which its request began to arrive."""
        self.unread = False
        """Whether its client may still be sending when the connection is closed."""
        self.websocket: WebSocket | None = None
        """What the connection has become; all that it receives goes there."""
        self._lingering = False
        self._end: asyncio.TimerHandle | None = None
        """When it is closed, while it says nothing or lingers."""
        self._left = self.app.config.REQUEST_BUFFER_SIZE
        self._begun = False

    @property
    def request_handler(self) -> Callable[[Request], Awaitable[None]]:
        """What Sanic has a request handled by; kept as an attribute, as Sanic would, it would be a cycle of garbage."""
        return self._handle

    @request_handler.setter
    def request_handler(self, handler: object) -> None:
        """Sanic sets its own, which `_handle` calls."""

    @property
    def is_spare(self) -> bool:
        """Whether no complete request is under way, so that it may be closed for another connection."""
        return self._lingering or self.http is None or self.http.stage in (Stage.IDLE, Stage.REQUEST)

    @property
    def order(self) -> tuple[bool, float]:
        """Sort key among the spare connections; the smallest is closed first."""
        return not self._lingering, self.since

    def connection_made(self, transport: Any) -> None:
        """Serve a new connection, or tell it that there are too many."""
        if self.app.ctx.connections.add(self):
            SanicProtocol.connection_made(self, transport)  # type: ignore[no-untyped-call]
            self.recv_buffer = bytearray()
            self._end = self.loop.call_later(self.keep_alive_timeout, self.close)
            return
        self.transport, self.conn_info = transport, ConnInfo(transport)
        self.connections.add(self)
        transport.write(_FULL)
        self.unread = True
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that is closed, and end its request when it is its turn."""
        if self._end is not None:
            self._end.cancel()  # a timer keeps all of its connection in memory
        super().close()  # which ends Sanic's timer
        self.app.ctx.connections.discard(self)
        if self.websocket is not None:
            self.websocket.lose()
        if self.transport is not None:
            _break_cycles(self.transport)
        lose = super().connection_lost
        if self._task is None:
            lose(exc)  # type: ignore[no-untyped-call]
        else:
            self.app.ctx.turns.call(partial(lose, exc))

    def data_received(self, data: bytes) -> None:
        """Take bytes that have arrived; a client that speaks TLS is disconnected."""
        if self.websocket is not None:
            self.websocket.received(data)
        elif self._lingering:
            self._left -= len(data)
            if self._left < 0:
                self.close()
        elif not self._begun and data.startswith(_TLS_HANDSHAKE):
            self.abort()
        else:
            self._begin()
            super().data_received(data)
            if self.is_spare and len(self.recv_buffer) > EARLY_BYTES and self.transport:
                self.transport.pause_reading()

    def _begin(self) -> None:
        """Begin to serve, if it has not begun."""
        if not self._begun:
            self._begun = True
            if self._end is not None:
                self._end.cancel()
            self._task = self.loop.create_task(self.connection_task())  # type: ignore[no-untyped-call]

    def close(self, timeout: float | None = None) -> None:
        """Close; if the client may still be sending, end our side first and go on receiving for a while."""
        if self.unread and not self._lingering and self.transport and not self.transport.is_closing():
            self._lingering = True
            self.recv_buffer = bytearray()
            try:
                self.transport.write_eof()
            except OSError:  # the client has reset the connection, which the event loop has not noticed yet
                self.abort()
                return
            self.transport.resume_reading()
            self._end = self.loop.call_later(LINGER_SECONDS, self.close)
        elif self.http is not None and self.http.stage is Stage.REQUEST:
            self.abort()  # Sanic cannot close it before there is a request
        else:
            super().close(timeout)

    def abort(self) -> None:
        """Close at once, without sending what is still to be sent."""
        if self.transport:
            self.transport.abort()

    async def _handle(self, request: Request) -> None:
        with ExitStack() as self.held:
            await self.app.handle_request(request)
        http = cast(GuardedHttp, self.http)
        if http.stage is Stage.IDLE:
            await http.discard_body()
        self.since = self.loop.time()


def _break_cycles(transport: asyncio.Transport) -> None:
    """Let a transport that is closed be freed without the garbage collector, which holds up all threads.

    asyncio's own refers to itself by methods that it keeps, and forgets them where it is closed (from Python 3.12 on),
    but not where its client has reset the connection.
    """
    kept = vars(transport)
    for name in ("_read_ready_cb", "_write_ready"):
        if name in kept:
            kept[name] = None


def _full_answer() -> bytes:
    error = TooManyConnectionsError("there are too many connections; try again soon")
    body = json.dumps(body_of_error(error)).encode()
    fields = {**error.headers, "content-type": "application/json", "content-length": len(body), "connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {error.status} Service Unavailable\r\n{head}\r\n".encode() + body


_FULL = _full_answer()
