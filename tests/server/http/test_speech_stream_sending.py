"""WS `/audio/speech/stream`: long messages to slow clients, and how the connection ends."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.server.answers import check_error
from tests.server.fakes import write_bundle
from tests.server.http.test_speech_stream import CONFIG, FRAME_BYTES, hear, kinds, say, tell
from tests.server.running import FAKE, KEY, PATIENCE_SECONDS, RunningServer, run_server, wait_until

PATH = "/v1/audio/speech/stream"
FRAMES = 2000
"""So many make a file that is longer than what the buffers of the system's sockets take."""
WHOLE = {**CONFIG, "stream_audio": False, "exact_frames": FRAMES}
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"
PING = b"\x89\xfd\0\0\0\0" + b"p" * 125


class Line(socket.socket):
    """A client's end of a connection, which receives as slowly as a test wants."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.flows = threading.Event()
        self.flows.set()
        self.seconds = 0.0
        """Before each time that it receives."""
        self.connect(("127.0.0.1", server.port))

    def recv(self, *args: int) -> bytes:
        self.flows.wait(PATIENCE_SECONDS)
        time.sleep(self.seconds)
        return super().recv(*args)

    def fills(self) -> None:
        """Wait until the server has begun to send a file that is not received."""

        def full() -> bool:
            return bool(select.select([self], [], [], 0)[0]) and len(super(Line, self).recv(*peeked)) == peeked[0]

        peeked = (1 << 15, socket.MSG_PEEK)
        wait_until(full, "a file is sent")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with room for one file."""
    scratch = tmp_path_factory.mktemp("sending")
    write_bundle(scratch / "models", "custom")
    settings = {"KW_MODELS_DIR": str(scratch / "models"), "KW_REQUEST_TIMEOUT": "4", "KW_MAX_FILE": "10MB"}
    with run_server(FAKE, scratch, **settings) as server:
        server.wait_ready()
        yield server


@contextmanager
def dial(server: RunningServer, line: Line) -> Iterator[ClientConnection]:
    """A socket that is sent whole files."""
    url = server.url.replace("http", "ws") + PATH
    headers = {"authorization": f"Bearer {KEY}"}
    with connect(url, sock=line, additional_headers=headers, compression=None, max_size=None) as connection:
        tell(connection, "session.config", **WHOLE)
        yield connection
        line.seconds = 0


def test_a_client_that_lags_may_say_something(server: RunningServer) -> None:
    line = Line(server)
    with dial(server, line) as connection, server.client() as client:
        line.flows.clear()
        say(connection, "One.")
        line.fills()
        tell(connection, "session.config", **WHOLE)
        connection.ping()
        client.get("/livez")  # by then the server has received them
        line.flows.set()
        events, audio = hear(connection)
        assert (kinds(events), len(audio)) == (["audio.start", "audio.done", "session.done"], FRAMES * FRAME_BYTES)


def test_a_client_that_takes_no_answers_is_left(server: RunningServer) -> None:
    line = Line(server)
    with dial(server, line):
        line.flows.clear()
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            for _ in range(1000):
                line.sendall(PING * 500)
        line.flows.set()


def test_a_file_counts_until_it_is_sent(server: RunningServer) -> None:
    asked = {"input": "One.", "voice": "serena", "response_format": "pcm", "exact_frames": FRAMES, "stream": False}
    line = Line(server)
    with dial(server, line) as connection, server.client() as client:
        line.seconds = 0.06
        say(connection, "One.")
        hear(connection, "audio.start")
        answer = client.post("/v1/audio/speech", json=asked)
        assert len(answer.content) < FRAMES * FRAME_BYTES
        assert check_error(answer, 429, "queue_full")
        line.seconds = 0
        hear(connection)
        assert len(client.post("/v1/audio/speech", json=asked).content) == FRAMES * FRAME_BYTES


def test_a_long_file_may_take_longer_than_the_timeout(server: RunningServer) -> None:
    line = Line(server)
    with dial(server, line) as connection:
        line.seconds = 0.06
        say(connection, "One.")
        events, audio = hear(connection)
        assert (kinds(events), len(audio)) == (["audio.start", "audio.done", "session.done"], FRAMES * FRAME_BYTES)


def test_a_file_that_is_cancelled_ends_where_it_is(server: RunningServer) -> None:
    line = Line(server)
    with dial(server, line) as connection:
        line.flows.clear()
        say(connection, "One.")
        line.fills()
        tell(connection, "input.cancel")
        line.flows.set()
        events, audio = hear(connection)
        assert kinds(events) == ["audio.start", "audio.done", "session.done"]
        assert events[1]["cancelled"] and events[2]["cancelled"]
        assert 0 < len(audio) < FRAMES * FRAME_BYTES
        tell(connection, "session.config", **{**WHOLE, "exact_frames": 2})
        say(connection, "Two.")
        assert len(hear(connection)[1]) == 2 * FRAME_BYTES


def test_the_server_ends_its_side_first(server: RunningServer) -> None:
    line = Line(server)
    fields = {
        "host": "localhost",
        "authorization": f"Bearer {KEY}",
        "x-request-id": "first-to-end",
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    line.settimeout(PATIENCE_SECONDS)
    with line, server.client() as client:
        line.sendall(f"GET {PATH} HTTP/1.1\r\n{head}\r\n".encode() + CLOSE)
        received = b""
        while more := line.recv(1 << 16):
            received += more
        assert received.endswith(b"\r\n\r\n\x88\x02\x03\xe8")
        for _ in range(2):  # a connection that the server has closed, or aborted, would be reset by the first
            line.sendall(PING)
            client.get("/livez")
    (line_of_log,) = wait_until(
        lambda: [line for line in server.log if " socket id=first-to-end " in line], "the socket is logged"
    )
    assert line_of_log.endswith("code=1000")
