"""Requests that make no progress, on either side, end; those that only take long do not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from sanic.response import HTTPResponse

from server.http.sending import SEND_BYTES, Sender
from server.speech.stall_timeout import stall_timeout
from tests.server import clock
from tests.server.answers import GOOD, check_error
from tests.server.clock import skip
from tests.server.fakes import write_bundle
from tests.server.http.test_leaving import raw_request
from tests.server.running import FAKE, PATIENCE_SECONDS, RunningServer, run_server, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    scratch = tmp_path_factory.mktemp("stalling")
    write_bundle(scratch / "models", "custom")
    with run_server(FAKE, scratch, KW_MODELS_DIR=str(scratch / "models"), KW_REQUEST_TIMEOUT="3") as server:
        server.wait_ready()
        yield server


def test_an_engine_that_makes_nothing_for_a_whole_file(server: RunningServer) -> None:
    with server.client() as client:
        answer = client.post("/v1/audio/speech", json={**GOOD, "input": "hang", "seed": 1, "stream": False})
        assert "nothing for 3 seconds" in check_error(answer, 504, "timeout")
        server.wait_event("dropped", seed=1, frames=1)
        assert client.post("/v1/audio/speech", json=GOOD).status_code == 200  # the row is free
    wait_until(lambda: [line for line in server.log if " seed=1 outcome=timed_out" in line], "it is logged")


def test_an_engine_that_makes_nothing_more_for_a_stream(server: RunningServer) -> None:
    fields = {**GOOD, "input": "hang", "seed": 2, "stream_format": "audio"}
    with server.client() as client, client.stream("POST", "/v1/audio/speech", json=fields) as response:
        assert response.status_code == 200
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            response.read()
    server.wait_event("dropped", seed=2, frames=1)


def test_a_client_that_reads_nothing_of_a_stream(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(raw_request(seed=3, exact_frames=4000, stream_format="audio"))
        assert server.wait_event("dropped", seed=3)["frames"] < 4000


def test_a_client_that_reads_nothing_of_a_whole_file(server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(raw_request(seed=4, exact_frames=4000, stream=False))
        server.wait_event("finished", seed=4, frames=4000)
        wait_until(lambda: [line for line in server.log if " seed=4 outcome=timed_out" in line], "it is left")
        received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-length: 15360000" in head
    assert len(body) < 4000 * 3840


def test_clients_that_send_half_a_request(server: RunningServer) -> None:
    with ExitStack() as stack:
        connections = []
        for missing in (1, 50, 200):
            address = ("127.0.0.1", server.port)
            connection = stack.enter_context(socket.create_connection(address, PATIENCE_SECONDS))
            connection.sendall(raw_request(seed=5, input="x" * 100)[:-missing])
            connections.append(connection)
        for connection in connections:
            received = b"".join(iter(partial(connection.recv, 1 << 16), b""))
            assert received.startswith(b"HTTP/1.1 408 ")
            assert b'"code": "request_timeout"' in received


def test_what_gets_on_may_take_long() -> None:
    async def work() -> None:
        done = 0
        async with stall_timeout(lambda: done, 10):
            for _ in range(5):
                await skip(9.9)
                done += 1
                await skip(1)  # enough for a look
        with pytest.raises(TimeoutError):
            async with stall_timeout(lambda: done, 10):
                done += 1
                await skip(2)
                await skip(9.9)
                await asyncio.Event().wait()

    clock.run(work())


def test_no_limit() -> None:
    async def work() -> None:
        async with stall_timeout(lambda: 0, 0):
            await skip(1_000_000)

    clock.run(work())


class Reader:
    """A response whose client takes each part of the body after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.parts = 0

    async def send(self, data: bytes) -> None:
        assert len(data) <= SEND_BYTES
        await skip(self._seconds)
        self.parts += 1

    async def eof(self) -> None:
        await skip(self._seconds)


def listen(reader: Reader, *, seconds_a_part: float, parts: int, timeout: float = 10) -> str:
    """Send a body of so many parts to a reader; the outcome."""

    async def work() -> str:
        speech: Any = SimpleNamespace(audio_seconds=0.0, outcome="done")
        sender = Sender(cast(HTTPResponse, reader), speech, timeout)
        try:
            for _ in range(parts):
                speech.audio_seconds += seconds_a_part
                await sender.send(bytes(SEND_BYTES))
            await sender.end()
        except TimeoutError:
            pass
        return str(speech.outcome)

    return clock.run(work())


def test_a_reader_at_playing_speed_with_a_pause_is_served() -> None:
    assert listen(Reader(1.3), seconds_a_part=1.3, parts=100) == "done"
    assert listen(Reader(9.9), seconds_a_part=3, parts=50) == "done"


def test_a_reader_who_takes_a_little_now_and_then_is_left() -> None:
    reader = Reader(9.9)
    assert listen(reader, seconds_a_part=1.3, parts=100) == "timed_out"
    assert reader.parts < 10


def test_the_end_of_a_body_has_the_same_limit() -> None:
    class Deaf(Reader):
        async def eof(self) -> None:
            await skip(10.1)
            await asyncio.Event().wait()

    assert listen(Deaf(0), seconds_a_part=1.3, parts=1) == "timed_out"


def test_a_part_of_any_length_is_sent_in_slices() -> None:
    async def work() -> int:
        reader = Reader(0)
        speech: Any = SimpleNamespace(audio_seconds=300.0, outcome="done")
        await Sender(cast(HTTPResponse, reader), speech, 0).send(bytes(14_400_000))
        return reader.parts

    assert clock.run(work()) == -(-14_400_000 // SEND_BYTES)
