"""Connections of clients that are slow, malformed, many, or speak something else than HTTP."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.http.capacity import LEAST_CONNECTIONS, RESERVED_DESCRIPTORS, connections_possible, limit_accept_errors
from tests.server.answers import GOOD, check_error
from tests.server.fakes import write_bundle
from tests.server.http.test_leaving import raw_request
from tests.server.running import FAKE, KEY, PATIENCE_SECONDS, RunningServer, fetch, run_server, wait_until

HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
SMUGGLED = b"GET /livez?smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
SPEECH = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that waits a second for a request."""
    scratch = tmp_path_factory.mktemp("connections")
    write_bundle(scratch / "models", "custom")
    with run_server(FAKE, scratch, KW_MODELS_DIR=str(scratch / "models"), KW_REQUEST_TIMEOUT="1") as server:
        server.wait_ready()
        yield server


def connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server ends it; a reset is an error."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def dribble(connection: socket.socket, byte: bytes) -> bytes:
    """Send a byte ever so often until the server has had enough; what it answered."""
    received = b""
    connection.settimeout(0.1)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            part = connection.recv(1 << 16)
            received += part
            if not part:
                return received
        except TimeoutError:
            connection.sendall(byte)
        except ConnectionResetError:
            return received
    raise TimeoutError("the server waits for ever")


def test_a_head_that_never_ends(server: RunningServer) -> None:
    before = late(server)
    with connect(server) as connection:
        connection.sendall(HEAD + b"A: ")
        received = dribble(connection, b"a")
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b'"code": "request_timeout"' in received
    assert late(server) == before + 1, "it is counted"


def test_a_body_that_never_ends(server: RunningServer) -> None:
    before = late(server)
    with connect(server) as connection:
        connection.sendall(SPEECH + b"Content-Length: 100000\r\n\r\n")
        assert dribble(connection, b"a").startswith(b"HTTP/1.1 408 ")
    assert late(server) == before + 1, "it is counted"


def late(server: RunningServer) -> int:
    """Answers of 408 that the metrics count."""
    with server.client() as client:
        text = client.get("/metrics").text
    return sum(int(float(found[1])) for found in re.finditer(r'http_answers_total\{status="408"\} (\S+)', text))


@pytest.mark.parametrize("framing", [b"Content-Length: 50000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [b"/nowhere", b"/livez", b"/v1/audio/speech"])
def test_a_body_that_never_ends_behind_an_answer(server: RunningServer, path: bytes, framing: bytes) -> None:
    method = b"GET" if path == b"/livez" else b"POST"
    with connect(server) as connection:
        connection.sendall(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
        received = dribble(connection, b"1\r\na\r\n" if b"chunked" in framing else b"a")
    assert received.count(b"HTTP/1.1 ") == 1


def test_a_small_body_that_nobody_wants_keeps_the_connection(server: RunningServer) -> None:
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(HEAD + b"Content-Length: 5\r\n\r\nhello")
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert read_all(connection).count(b"HTTP/1.1 200 OK") == 4
    assert not [line for line in server.log if " ERROR " in line]


@pytest.mark.parametrize("path", ["/nowhere", "/v1/models", "/v1/audio/speech"])
def test_an_answer_is_read_whole_behind_a_large_body(server: RunningServer, path: str) -> None:
    for _ in range(5):
        answer = fetch("POST", server.url + path, content=bytes(3 << 20))
        assert answer.status_code in (401, 404, 405)


def test_a_client_that_asks_is_not_told_to_send_what_nobody_reads(server: RunningServer) -> None:
    for request in (
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n",
        SPEECH + b"Content-Length: 99999999\r\n",
    ):
        with connect(server) as connection:
            connection.sendall(request + b"Expect: 100-Continue\r\n\r\n")
            received = read_all(connection)
        assert received.startswith(b"HTTP/1.1 4")
        assert b"\r\nconnection: close\r\n" in received


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_asks_is_told_to_send_what_is_read(server: RunningServer, chunked: bool) -> None:
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: 2\r\n"
    with connect(server) as connection:
        connection.sendall(SPEECH + framing + b"Connection: close\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"2\r\n{}\r\n0\r\n\r\n" if chunked else b"{}")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_speaks_tls_is_disconnected(server: RunningServer) -> None:
    with connect(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200))
        try:
            received = read_all(connection)
        except ConnectionResetError:
            received = b""
    assert received == b""


@pytest.mark.parametrize("nonsense", [b"\0\1\2", b" GET / HTTP/1.1", b"GET /livez HTTP/1.1\nHost: x\n\n", b"\x80\x2e"])
def test_what_cannot_become_a_request_is_not_waited_for(server: RunningServer, nonsense: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(nonsense)
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"Content-Length : %d\r\n\r\n" % len(SMUGGLED),
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"A: b\r\n Content-Length: 5\r\n\r\n",
        HEAD + b"Host: y\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
        HEAD + b"A: b\nContent-Length: 5\r\n\r\n",
    ],
)
def test_ambiguous_heads_cannot_smuggle_a_second_request(server: RunningServer, request_bytes: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(request_bytes + SMUGGLED)
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nconnection: close\r\n" in received
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("head", [SPEECH, b"POST /nowhere HTTP/1.1\r\nHost: x\r\n", HEAD])
@pytest.mark.parametrize(
    "body",
    [
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}XX0\r\n\r\n",
        b"2\r\n{}0\r\n\r\n",
        b"2;\n\r\n{}\r\n0\r\n\r\n",
        b"2\n{}\r\n0\r\n\r\n",
        b" 2\r\n{}\r\n0\r\n\r\n",
        b"\r\n\r\n",
        b"0\r\nGET /livez HTTP/1.1\r\n\r\n",
        b"0\r\na: b\nc\r\n\r\n",
    ],
)
def test_malformed_chunks_cannot_smuggle_a_second_request(server: RunningServer, head: bytes, body: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + body + SMUGGLED)
        received = read_all(connection)
    assert received.count(b"HTTP/1.1 ") == 1
    if head == SPEECH:
        assert received.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nconnection: close\r\n" in received
        assert b'"bad_request"' in received


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED \t"])
@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0;a=b\r\nChecksum: 5\r\nMore: x\r\n\r\n"])
def test_chunks_however_they_are_written(server: RunningServer, coding: bytes, end: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(SPEECH + b"Transfer-Encoding: " + coding + b"\r\n\r\n1;x=y\r\n{\r\n1 \r\n}\r\n" + end)
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        received = read_all(connection)
    assert b'"input is required"' in received
    assert received.count(b"HTTP/1.1 200 OK") == 1, "the next request is answered too"


def test_an_empty_line_before_a_request_is_nothing(server: RunningServer) -> None:
    with connect(server) as connection:
        connection.sendall(b"\r\n" + HEAD + b"Connection: close\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[RunningServer]:
    """A server of three connections."""
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_MAX_CONNECTIONS": "3", "FAKE_FRAME_SECONDS": "0.01"}
    with run_server(FAKE, tmp_path, **settings) as server:
        server.wait_ready()
        yield server


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_the_oldest_idle_connection_makes_room(small: RunningServer) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(small)) for _ in range(3)]
        idle[0].sendall(HEAD + b"\r\n")
        assert idle[0].recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        idle[1].sendall(HEAD)  # half a request is none
        assert fetch("GET", f"{small.url}/livez").status_code == 200
        wait_until(lambda: is_closed(idle[2]), "the one that never asked is closed")
        assert fetch("GET", f"{small.url}/livez").status_code == 200
        assert not is_closed(idle[0]) or not is_closed(idle[1])
        for _ in range(20):
            stack.enter_context(connect(small))
            assert fetch("GET", f"{small.url}/livez").status_code == 200
    assert len([line for line in small.log if " WARNING connections_full " in line]) == 1
    assert not [line for line in small.log if " ERROR " in line]


def test_requests_under_way_are_not_closed_for_a_new_one(small: RunningServer) -> None:
    with ExitStack() as stack:
        busy = [stack.enter_context(connect(small)) for _ in range(3)]
        for seed, connection in enumerate(busy):
            connection.sendall(raw_request(seed=seed, exact_frames=4000))
            small.wait_event("submitted", seed=seed)
        for _ in range(10):
            response = fetch("GET", f"{small.url}/livez")
            assert (response.status_code, response.json()["error"]["code"]) == (503, "too_many_connections")
            assert int(response.headers["retry-after"]) > 0
        assert not any(map(is_closed, busy))
    wait_until(lambda: fetch("GET", f"{small.url}/livez").status_code == 200, "there is room again")


def test_as_many_connections_as_there_are_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, possible in (
        (1024, 512),
        (300, 300 - RESERVED_DESCRIPTORS),
        (64, LEAST_CONNECTIONS),
        (resource.RLIM_INFINITY, 512),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert connections_possible(512) == possible


def test_out_of_descriptors_the_log_has_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        limit_accept_errors(loop)
        with socket.create_server(("127.0.0.1", 0)) as sock:
            for _ in range(1000):
                error = OSError(errno.EMFILE, "Too many open files")
                loop.call_exception_handler({"message": "socket.accept() out", "exception": error, "socket": sock})
        loop.call_exception_handler({"message": "something else", "exception": ValueError("why")})

    asyncio.run(run())
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert messages == ['cannot_accept times=1 reason="Too many open files"', "something else"]


def test_a_server_with_few_descriptors_goes_on(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models")) as server, ExitStack() as stack:
        server.wait_ready()
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (20, 20))  # the server reckoned with more
        for _ in range(60):
            stack.enter_context(connect(server))
        wait_until(lambda: any(" cannot_accept " in line for line in server.log), "it is told")
        stack.close()
        assert fetch("GET", f"{server.url}/livez").status_code == 200
        assert len([line for line in server.log if "cannot_accept" in line]) <= 3
        assert len(server.log) < 100


def test_half_a_head_when_the_server_stops(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_DRAIN_SECONDS": "1"}
    with run_server(FAKE, tmp_path, **settings) as server:
        server.wait_ready()
        with connect(server) as connection:
            connection.sendall(HEAD)
            check_error(fetch("POST", f"{server.url}/v1/audio/speech", json=GOOD), 401, "invalid_api_key")
            assert server.stop() == 0
    assert not [line for line in server.log if " ERROR " in line]


def test_a_burst_of_connections_waits_for_a_busy_server(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models")) as server, ExitStack() as stack:
        server.wait_ready()
        server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(300):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS / 6))
        finally:
            server.process.send_signal(signal.SIGCONT)
