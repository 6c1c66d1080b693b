"""Sanic's HTTP/1.1 connections, with bounds on what the connection of a stranger can cost.

Head and body of a request share one deadline. Heads and chunks are checked before Sanic reads them
(`server.http.framing`). The rest of an unwanted body is discarded within bounds, and the number of connections is
limited (`server.http.capacity`). Every inside of Sanic that this builds on has its test in
`tests/server/http/test_sanic_connections.py`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

from sanic import Request
from sanic.exceptions import BadRequest, PayloadTooLarge, RequestTimeout
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE
from sanic.models.server_types import ConnInfo
from sanic.server import HttpProtocol
from sanic.server.protocols.base_protocol import SanicProtocol

from server.errors import TooManyConnectionsError
from server.http import framing
from server.http.error_answers import body_of_error
from server.http.framing import HEAD_END, LINE_END, FramingError
from server.http.websocket import WebSocket

LEFTOVER_BYTES = 1 << 16
LEFTOVER_SECONDS = 1.0
"""The most that is read of an unwanted body, in bytes and seconds, so that its connection can serve another request."""

LINGER_SECONDS = 5.0
"""How long a client may go on sending before its connection is closed: closed at once, it could lose the answer."""

EARLY_BYTES = 1 << 14
"""What is received of a request before it is its turn, in bytes, give or take what arrives at once: until then nobody
has looked at its key, and hundreds of connections may wait."""
_CHUNK_LINE_BYTES = 1024
_CHUNKS_A_ROUND = 16
"""Chunks of a body that are taken in one round of the event loop: tens of thousands may have arrived at once."""
_HEALTH = re.compile(rb"(?:GET|HEAD) /(?:livez|readyz|health)[ ?]")
"""These requests wait for no turn: whoever asks takes a late answer for a server that is ill, and ends it."""
_TLS_HANDSHAKE = b"\x16"
"""First byte of a client that speaks TLS (RFC 8446, section 5.1)."""


class GuardedHttp(Http):
    """Receives the requests of one connection, one after the other."""

    __slots__ = ("chunks", "deadline")

    protocol: GuardedProtocol
    chunks: int
    """Chunks of the body whose sizes have been read."""
    deadline: float
    """Time of the event loop by which the request that is being received must be complete."""

    async def http1_request_header(self) -> None:
        """Receive a head before the deadline, check it, and let Sanic parse it.

        Raises:
            BadRequest: the head is malformed.
            RequestTimeout: the head was not complete in time.
        """
        self.chunks = 0
        self.protocol.since = now = self.protocol.loop.time()
        self.deadline = now + self.protocol.request_timeout
        head = self.recv_buffer
        try:
            async with asyncio.timeout_at(self.deadline):
                while (end := self._head_end()) < 0 and len(head) < self.HEADER_MAX_SIZE:
                    framing.check_beginning(head)
                    await self._receive_more()
            if end >= 0:
                if _HEALTH.match(head):
                    await asyncio.sleep(0)  # thousands of requests may have arrived at once
                else:
                    await self.protocol.app.ctx.turns.take()
                if self.protocol.transport:
                    self.protocol.transport.resume_reading()
                head[:end] = framing.normal_head(bytes(head[:end]))
        except FramingError as error:
            raise BadRequest(str(error)) from error
        except TimeoutError as error:
            raise RequestTimeout("the request did not come to its end in time") from error
        await super().http1_request_header()  # type: ignore[no-untyped-call]

    def _head_end(self) -> int:
        """Find the head's end, -1 if it is not there yet; empty lines before it are dropped (RFC 9112, section 2.2)."""
        while self.recv_buffer.startswith(LINE_END):
            del self.recv_buffer[: len(LINE_END)]
        return int(self.recv_buffer.find(HEAD_END))

    async def read(self) -> bytes | None:
        """Read some bytes of the body; None at its end.

        Raises:
            BadRequest: a chunk is malformed.
            PayloadTooLarge: the body is too large.
        """
        if self._is_before_a_chunk():
            if self.expecting_continue:
                self.expecting_continue = False
                await self._send(HTTP_CONTINUE)
            try:
                await self._check_chunk()
            except FramingError as error:
                self.keep_alive = False
                raise BadRequest(str(error)) from error
        return await super().read()

    def _is_before_a_chunk(self) -> bool:
        body: object = self.request_body  # Sanic's own type for it is wrong
        return body == "chunked" and not self.request_bytes_left

    async def _check_chunk(self) -> None:
        """Wait for the size line of the next chunk, and after the last chunk for its trailers, and check them."""
        self.chunks += 1
        if not self.chunks % _CHUNKS_A_ROUND:
            await asyncio.sleep(0)
        received = self.recv_buffer
        size = framing.chunk_size(await self._line(len(LINE_END), _CHUNK_LINE_BYTES))
        if received[: len(LINE_END)] != LINE_END:
            raise FramingError("a chunk is longer than its size")
        if size:
            return
        trailers = begin = received.find(LINE_END, len(LINE_END)) + len(LINE_END)
        while line := await self._line(begin, trailers + self.HEADER_MAX_SIZE):
            framing.check_trailer(line)
            begin += len(line) + len(LINE_END)
        del received[trailers:begin]  # Sanic cannot parse trailers

    async def _line(self, begin: int, limit: int) -> bytes:
        """Return the line that begins at an index, without its end, once it has arrived."""
        while (end := self.recv_buffer.find(LINE_END, begin)) < 0:
            if len(self.recv_buffer) > limit:
                raise FramingError("a line between chunks is too long")
            await self._receive_more()
        if end > limit:
            raise FramingError("a line between chunks is too long")
        return bytes(self.recv_buffer[begin:end])

    @property
    def length(self) -> int | None:
        """Bytes of the body, as the head tells them; None where it comes in chunks."""
        body: object = self.request_body
        return None if body == "chunked" else self.request_bytes or 0

    def check_length(self) -> None:
        """Check the body's length as the head tells it, before a client that asks is told to send the body.

        Raises:
            PayloadTooLarge: the body would be too large.
        """
        if (self.request_bytes or 0) > self.request_max_size:
            raise PayloadTooLarge("Request body exceeds the size limit")

    def give_up_body(self) -> None:
        """Read no more of this request, and close the connection after the answer."""
        self.request_body = None
        self.expecting_continue = False
        self.keep_alive = False
        self.protocol.unread = True

    @contextmanager
    def body_waits(self) -> Iterator[None]:
        """Receive no more of the body, of which megabytes may come; that its client leaves is noticed afterwards."""
        transport = cast(asyncio.Transport, self.protocol.transport)
        transport.pause_reading()
        try:
            yield
        finally:
            transport.resume_reading()

    async def discard_body(self) -> None:
        """After an answer, discard the rest of the request if it is small and arrives soon; else give it up."""
        try:
            async with asyncio.timeout(LEFTOVER_SECONDS):
                while self.request_body and (self.request_bytes or 0) <= LEFTOVER_BYTES:
                    await self.read()
        except (TimeoutError, BadRequest, PayloadTooLarge):
            pass
        if self.request_body:
            self.give_up_body()

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Send the head of the answer; a client that waits for leave to send its body need not send it any more."""
        if self.expecting_continue:
            self.give_up_body()
        await super().http1_response_header(data, end_stream)

    async def error_response(self, exception: Exception) -> None:
        """Answer an error outside a handler; after an incomplete head nothing more is read."""
        if self.stage is Stage.REQUEST:
            self.give_up_body()
        try:
            await super().error_response(exception)
        finally:
            exception.__traceback__ = None  # Sanic keeps the error in a frame to which this leads
            if self.protocol.transport is None or self.protocol.transport.is_closing():
                self._forget()

    def _forget(self) -> None:
        """Break the cycles that Sanic leaves of a request whose client has left, so that it is freed at once."""
        self.response_func = None  # type: ignore[assignment]
        for each in (self.request, self.response):
            if each is not None:
                each.stream = None


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
