"""One WebSocket (RFC 6455) on a connection of ours, from its request to its end.

`websockets` has the protocol without the network; this puts it on Sanic's connection, whose own WebSockets would be
cancelled when the server begins to drain, and are not told at once that their client has left.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, cast

from sanic import Request
from websockets import http11
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader, InvalidUpgrade
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from server.errors import InvalidRequestError, UpgradeRequiredError

if TYPE_CHECKING:
    from server.http.connections import GuardedProtocol

MOST_WAITING = 64
"""Messages that may wait to be received before the connection is read no further."""
MOST_WAITING_BYTES = 1 << 18
"""Likewise of all of them together; one alone may be longer."""
TAKEN_AT_ONCE = 1 << 10
"""Bytes that are looked at before the time is: of such that have arrived at once, thousands may be frames."""
ROUND_SECONDS = 0.002
"""For which frames are taken in one round of the event loop."""
MOST_UNSENT = 1 << 20
"""Bytes that a client may leave unread of answers that it makes the server give, such as those to pings."""
CLOSE_SECONDS = 5.0
"""How long the client may take to answer the end of the conversation."""
FRAGMENT_BYTES = 1 << 16
"""The most of a message that is sent at once; the client has to take most of that before more of it is sent."""

SUBPROTOCOL = Subprotocol("speech-stream")
"""What we speak. A browser that offers any subprotocols, as one with a key does, wants one of them chosen."""

Message = str | bytes
Bounded = Callable[[Awaitable[None]], Awaitable[None]]
"""Waits until the client has taken what was sent, with a limit on how long that may take."""


class WebSocket:
    """A WebSocket that has been accepted. Messages are whole, and none is compressed.

    Args:
        connection: whose request has asked for it; from then on it hands over all that it receives.
        protocol: of which the handshake has been answered.
    """

    def __init__(self, connection: GuardedProtocol, protocol: ServerProtocol) -> None:
        self._connection, self._protocol = connection, protocol
        self._messages: deque[Message] = deque()
        self._waiting = 0
        """Bytes, or characters, of these."""
        self._arrived = bytearray()
        """What has been received and not looked at."""
        self._looking = False
        """Whether that is about to be."""
        self._begun = bytearray()
        self._text = True
        self._changed = asyncio.Event()
        self._lost = False
        self._sending = asyncio.Lock()
        """Held while a message is sent, because the fragments of two messages may not mix."""
        self._unread = 0
        """Bytes of answers to the client's frames that it may not have taken yet."""

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
        protocol = ServerProtocol(max_size=max_bytes, state=State.OPEN, select_subprotocol=_choose)
        asked = http11.Request(request.path, Headers(request.headers.items()))
        answer = protocol.accept(asked)
        if request.method != "GET" or isinstance(protocol.handshake_exc, InvalidUpgrade):
            raise UpgradeRequiredError(
                "this route is a WebSocket: ask for it with ws:// or wss://; without one, POST /v1/audio/speech"
            )
        if protocol.handshake_exc is not None:
            raise InvalidRequestError(f"the WebSocket's handshake is wrong: {_fault(protocol.handshake_exc)}")
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
        self._waiting -= len(message)
        self._resume()
        return message

    async def send(self, message: Message | bytearray, bounded: Bounded) -> None:
        """Send a message, and return once the client has taken most of it; at the end of the conversation, nothing.

        A message that is given up half-way ends there for the client too; otherwise no other message could follow it.

        Args:
            message: which is sent in fragments (RFC 6455, section 5.4).
            bounded: awaits the sending of each fragment; its errors give the message up.
        """
        begin = self._protocol.send_text if isinstance(message, str) else self._protocol.send_binary
        data = memoryview(message.encode() if isinstance(message, str) else message)
        async with self._sending:
            try:
                for at in range(0, max(len(data), 1), FRAGMENT_BYTES):
                    if not self.open:
                        return
                    put = self._protocol.send_continuation if at else begin
                    put(data[at : at + FRAGMENT_BYTES], at + FRAGMENT_BYTES >= len(data))
                    self._write()
                    # Sanic waits until there is room to write, and what it is given here adds nothing.
                    await bounded(self._connection.send(b""))  # type: ignore[no-untyped-call]
            finally:
                if self.open and self._protocol.expect_continuation_frame:
                    self._protocol.send_continuation(b"", fin=True)
                    self._write()

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """End the conversation; what the client still sends is not received."""
        if self.open:
            self._protocol.send_close(code, reason)
            self._write()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while not self._lost and self._protocol.state is not State.CLOSED:
                    self._messages.clear()
                    self._waiting = 0
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
        self._arrived += data
        if not self._looking:
            self._look()

    def _look(self) -> None:
        """Take what has arrived, as much of it as there is time and room for; the rest has to wait."""
        self._looking = False
        ends = time.monotonic() + ROUND_SECONDS
        while self._arrived and not self._lost and not self._full:
            self._protocol.receive_data(bytes(self._arrived[:TAKEN_AT_ONCE]))
            del self._arrived[:TAKEN_AT_ONCE]
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    self._take(event)
            self._answer()
            if time.monotonic() > ends:
                break
        if self._full or self._arrived:
            self._pause()
        self._resume()
        self._changed.set()

    @property
    def _full(self) -> bool:
        """Whether as many messages wait as may."""
        return len(self._messages) >= MOST_WAITING or self._waiting >= MOST_WAITING_BYTES

    def lose(self) -> None:
        """The connection is gone."""
        self._lost = True
        self._protocol.receive_eof()
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
            self._waiting += len(self._messages[-1])
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "text is UTF-8")

    def _answer(self) -> None:
        """Send what the protocol answers by itself, to a client that takes its answers."""
        answered = self._write()
        if self._connection.transport is not None:
            # The transport also holds audio, which the client wants and which waits for it.
            self._unread = min(self._unread + answered, self._connection.transport.get_write_buffer_size())
        if self._unread > MOST_UNSENT:
            self._connection.abort()

    def _write(self) -> int:
        """Write what the protocol has to send; returns its bytes."""
        transport = self._connection.transport
        if self._lost or transport is None or transport.is_closing():
            return 0
        if data := b"".join(self._protocol.data_to_send()):
            transport.write(data)
        if self._protocol.eof_sent:
            # The server ends its side first (RFC 6455, section 7.1.1). It still reads until the client ends its own
            # side: a connection closed with bytes unread is reset, and the client could lose why it was closed.
            transport.write_eof()
        return len(data)

    def _pause(self) -> None:
        if not self._lost and self._connection.transport is not None:
            self._connection.transport.pause_reading()

    def _resume(self) -> None:
        """Go on with what has arrived, and behind that with what will, unless too many messages wait."""
        if self._lost or self._full or self._looking:
            return
        if self._arrived:
            self._looking = True
            self._connection.loop.call_soon(self._look)
        elif self._connection.transport is not None:
            self._connection.transport.resume_reading()


def _fault(error: Exception) -> str:
    """What is wrong with a handshake, without the value of any header: one may hold the client's key."""
    return f"invalid {error.name} header" if isinstance(error, InvalidHeader) and error.value else str(error)


def _choose(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose among the subprotocols that the client offers; others than ours do not keep it out."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None
