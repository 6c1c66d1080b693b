"""What arrives at once is taken in several rounds of the event loop, between which other connections have their turn.

A burst of 256 KB had held the loop for as long as its client went on sending: 4 s in which nobody was answered.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest
from sanic import Sanic
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from server.http import framing, receiving, websocket
from server.http.connections import GuardedProtocol
from server.http.websocket import MOST_WAITING_BYTES, WebSocket
from server.metrics import Metrics
from tests.server.clock import until
from tests.server.http import test_sanic, test_turns
from tests.server.http.test_sanic import run

several_apps, app = test_sanic.several_apps, test_turns.app

HEALTH = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
CHUNKED = b"POST /v1/audio/speech HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
UPGRADE = (
    b"GET /v1/audio/speech/stream HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)


class Rounds:
    """Counts the rounds of the event loop, and what happens in each."""

    def __init__(self) -> None:
        self.now = 0
        self.counts: Counter[int] = Counter()

    def watched(self, does: Callable[..., Any]) -> Callable[..., Any]:
        def do(*arguments: Any, **named: Any) -> Any:
            self.counts[self.now] += 1
            return does(*arguments, **named)

        return do

    def begin(self) -> None:
        self.now += 1
        asyncio.get_running_loop().call_soon(self.begin)


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as a client sends it."""
    return Frame(opcode, data, fin).serialize(mask=True)


def pings() -> bytes:
    return frame(Opcode.PING) * 5000


def fragments() -> bytes:
    return frame(Opcode.TEXT, fin=False) + frame(Opcode.CONT, fin=False) * 5000


def messages() -> bytes:
    return frame(Opcode.TEXT, b"{}") * 5000


@pytest.mark.parametrize(
    ("owner", "work", "sent", "count", "most"),
    [
        (Metrics, "answered", HEALTH * 1000, 1000, 2),
        (framing, "chunk_size", CHUNKED + b"1\r\n \r\n" * 5000 + b"0\r\n\r\n", 5000, receiving._CHUNKS_A_ROUND + 1),
        (ServerProtocol, "recv_frame", UPGRADE + pings(), 5000, websocket.TAKEN_AT_ONCE // 6 + 2),
        (ServerProtocol, "recv_frame", UPGRADE + fragments(), 5000, websocket.TAKEN_AT_ONCE // 6 + 2),
        (ServerProtocol, "recv_frame", UPGRADE + messages(), 5000, websocket.TAKEN_AT_ONCE // 6 + 2),
    ],
    ids=["requests", "chunks", "pings", "fragments", "messages"],
)
def test_few_of_what_arrives_at_once_are_taken_in_a_round(
    owner: Any, work: str, sent: bytes, count: int, most: int, app: Sanic[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = Rounds()
    monkeypatch.setattr(owner, work, rounds.watched(getattr(owner, work)))
    monkeypatch.setattr(websocket, "ROUND_SECONDS", 0.0)  # one look in each round, however fast this machine is

    async def test() -> None:
        async with test_sanic.serving(app, GuardedProtocol) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            rounds.begin()
            writer.write(sent)
            taking = asyncio.create_task(reader.read(-1))  # else the server would wait for its client to read
            await until(lambda: rounds.counts.total() >= count, "all is taken")
            writer.transport.abort()
            taking.cancel()

    run(test)
    assert max(rounds.counts.values()) <= most


class Transport:
    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class Connection:
    def __init__(self) -> None:
        self.transport = Transport()
        self.loop = asyncio.get_running_loop()


def test_few_bytes_of_messages_wait_to_be_received() -> None:
    """64 messages of 2.4 MB had been kept for a session that was busy with another one."""

    async def test() -> None:
        connection = Connection()
        protocol = ServerProtocol(state=State.OPEN, max_size=MOST_WAITING_BYTES)
        socket = WebSocket(cast(GuardedProtocol, connection), protocol)
        half = frame(Opcode.BINARY, bytes(MOST_WAITING_BYTES // 2))
        for _ in range(20):
            socket.received(half)
            await asyncio.sleep(0)
        await until(lambda: not connection.transport.reading, "no more is received")
        assert len(socket._messages) == 2
        for left in range(20, 0, -1):
            assert await socket.receive() == bytes(MOST_WAITING_BYTES // 2), f"{left} are left"
        await until(lambda: connection.transport.reading, "more is received")

    run(test)
