"""Receives the requests of one of Sanic's HTTP/1.1 connections, one after the other.

Head and body of a request share one deadline. Heads and chunks are checked before Sanic reads them
(`server.http.framing`). The rest of an unwanted body is discarded within bounds. Every inside of Sanic that this builds
on has its test in `tests/server/http/test_sanic_connections.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from sanic.exceptions import BadRequest, PayloadTooLarge, RequestTimeout
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE

from server.http import framing
from server.http.framing import HEAD_END, LINE_END, FramingError

if TYPE_CHECKING:
    from server.http.connections import GuardedProtocol

LEFTOVER_BYTES = 1 << 16
LEFTOVER_SECONDS = 1.0
"""The most that is read of an unwanted body, in bytes and seconds, so that its connection can serve another request."""
_CHUNK_LINE_BYTES = 1024
_CHUNKS_A_ROUND = 16
"""Chunks of a body that are taken in one round of the event loop: tens of thousands may have arrived at once."""
_HEALTH = re.compile(rb"(?:GET|HEAD) /(?:livez|readyz|health)[ ?]")
"""These requests wait for no turn: whoever asks takes a late answer for a server that is ill, and ends it."""


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
            raise PayloadTooLarge("the body is too large")

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
