"""One WebSocket (RFC 6455) on a connection of ours, from its request to its end.

`websockets` has the protocol without the network; this puts it on Sanic's connection, whose own WebSockets would be
cancelled when the server begins to drain, and are not told at once that their client has left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from sanic import Request
from websockets import http11
from websockets.datastructures import Headers
from websockets.exceptions import InvalidUpgrade
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from server.errors import InvalidRequestError, UpgradeRequiredError

if TYPE_CHECKING:
    from server.http.connections import GuardedProtocol

MOST_WAITING = 64
"""Messages that may wait to be received before the connection is read no further."""
MOST_UNSENT = 1 << 20
"""Bytes that a client may leave unread of answers that it makes the server give, such as those to pings."""
CLOSE_SECONDS = 5.0
"""How long the client may take to answer the end of the conversation."""

Message = str | bytes


class WebSocket:
    """A WebSocket that has been accepted. Messages are whole, and none is compressed.

    Args:
        connection: whose request has asked for it; from then on it hands over all that it receives.
        protocol: of which the handshake has been answered.
    """

    def __init__(self, connection: GuardedProtocol, protocol: ServerProtocol) -> None:
        self._connection, self._protocol = connection, protocol
        self._messages: deque[Message] = deque()
        self._begun = bytearray()
        self._text = True
        self._changed = asyncio.Event()
        self._lost = False

    @classmethod
    async def accept(cls, request: Request, max_bytes: int) -> WebSocket:
        """Answer a request that asks for a WebSocket.

        Args:
            request: one that may come in.
            max_bytes: of a message; a longer one ends the conversation (close code 1009).

        Raises:
            UpgradeRequiredError: it asks for none.
            InvalidRequestError: it asks wrongly.
        """
        # Already open, as it would read the request itself otherwise.
        protocol = ServerProtocol(max_size=max_bytes, state=State.OPEN)
        asked = http11.Request(request.path, Headers(request.headers.items()))
        answer = protocol.accept(asked)
        if request.method != "GET" or isinstance(protocol.handshake_exc, InvalidUpgrade):
            raise UpgradeRequiredError(
                "this route is a WebSocket: ask for it with ws:// or wss://; without one, POST /v1/audio/speech"
            )
        if protocol.handshake_exc is not None:
            raise InvalidRequestError(f"the WebSocket's handshake is wrong: {protocol.handshake_exc}")
        answer.headers["x-request-id"] = str(request.id)
        connection = cast("GuardedProtocol", cast(asyncio.Transport, request.transport).get_protocol())
        socket = cls(connection, protocol)
        await connection.send(answer.serialize())  # type: ignore[no-untyped-call]
        early, connection.recv_buffer = bytes(connection.recv_buffer), bytearray()
        connection.websocket = socket
        socket._resume()
        socket.received(early)
        return socket

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._lost

    @property
    def close_code(self) -> int | None:
        """Why the conversation has ended, as RFC 6455 numbers it; None where it has not."""
        return self._protocol.close_code

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return not self._lost and self._protocol.state is State.OPEN

    async def receive(self) -> Message | None:
        """The next message; None at the end of the conversation, whoever ended it."""
        while not self._messages:
            if self._lost or self._protocol.state in (State.CLOSING, State.CLOSED):
                return None
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        if len(self._messages) < MOST_WAITING:
            self._resume()
        return message

    async def send(self, message: Message) -> None:
        """Send a message once the client has taken most of those before it; at the end of the conversation, nothing."""
        if not self.open:
            return
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        await self._connection.send(b"".join(self._protocol.data_to_send()))  # type: ignore[no-untyped-call]

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """End the conversation; what the client still sends is not received."""
        if self.open:
            self._protocol.send_close(code, reason)
            self._write()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while not self._lost and self._protocol.state is not State.CLOSED:
                    self._messages.clear()
                    self._resume()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self._connection.abort()

    def abort(self) -> None:
        """End the connection at once."""
        self._connection.abort()

    # The connection's side.

    def received(self, data: bytes) -> None:
        """The connection has received something."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
        self._write()
        if len(self._messages) >= MOST_WAITING and self._connection.transport is not None:
            self._connection.transport.pause_reading()
        self._changed.set()

    def lose(self) -> None:
        """The connection is gone."""
        self._lost = True
        self._changed.set()

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        self._begun += frame.data
        if not frame.fin:
            return
        whole, self._begun = bytes(self._begun), bytearray()
        try:
            self._messages.append(whole.decode() if self._text else whole)
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "text is UTF-8")

    def _write(self) -> None:
        """Send what the protocol answers by itself."""
        transport = self._connection.transport
        if self._lost or transport is None or transport.is_closing():
            return
        if data := b"".join(self._protocol.data_to_send()):
            transport.write(data)
        if transport.get_write_buffer_size() > MOST_UNSENT:
            self._connection.abort()

    def _resume(self) -> None:
        if not self._lost and self._connection.transport is not None:
            self._connection.transport.resume_reading()
