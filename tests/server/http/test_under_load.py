"""The real server with more callers than rows, and clients that hang, die, or send half a request."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.server.answers import check_error
from tests.server.http.test_leaving import raw_request
from tests.server.running import REAL, RunningServer, run_server, wait_until
from tests.server.test_metrics import read

SPEECH = "/v1/audio/speech"
ROWS, QUEUE = 4, 20
CALLERS = ROWS + QUEUE
TEXTS = ("Late", "A rather longer sentence than the others, and still not a long one.", "Two of three", "Hi")
SAMPLING: tuple[dict[str, float], ...] = ({}, {"temperature": 0}, {"top_p": 0.8, "temperature": 1.3}, {"top_k": 3})
ENDLESS = {
    "model": "tts-1",
    "input": "On and on",
    "temperature": 0,
    "repetition_penalty": 1,
    "exact_frames": 2000,
    "stream_format": "audio",
}
"""What the model that makes noise does not end by itself: 7.7 MB, more than the engine and sockets hold for a client
that does not read."""


@contextmanager
def running(bundle: Path, scratch: Path, **variables: str) -> Iterator[RunningServer]:
    settings = {"KW_MODELS_DIR": str(bundle.parent), "KW_MODEL": bundle.name, "KW_MAX_ROWS": str(ROWS)}
    with run_server(REAL, scratch, **{**settings, "KW_MAX_QUEUE": str(QUEUE), **variables}) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(bundle, tmp_path_factory.mktemp("load")) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def request(seed: int) -> dict[str, Any]:
    """Differs from its neighbours in text, sampling, length and format."""
    fields = {"model": "tts-1", "voice": "alloy", "input": TEXTS[seed % 4], "response_format": "pcm", "seed": seed}
    fields |= {"exact_frames": 3 + seed % 13, "stream": bool(seed % 2)}
    return {**fields, **SAMPLING[seed // 4 % 4]}


def samples(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    return np.frombuffer(response.content, "<i2").astype(int)


def value(client: httpx.Client, name: str, bundle: Path) -> float:
    return read(client).get((name, bundle.name), 0.0)


def connect(server: RunningServer) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    return connection


@contextmanager
def never_reading(server: RunningServer, clients: int) -> Iterator[None]:
    """So many clients that have a row and read one byte of its audio."""
    with ExitStack() as stack:
        for _ in range(clients):
            connection = stack.enter_context(connect(server))
            connection.sendall(raw_request(**ENDLESS))
            assert connection.recv(1)
        yield


@pytest.fixture(scope="module")
def alone(server: RunningServer) -> list[np.ndarray]:
    """What each of `request(0)`, `request(1)`, ... hears on its own."""
    with server.client() as client:
        heard = [samples(client.post(SPEECH, json=request(seed))) for seed in range(CALLERS)]
    assert len({len(one) for one in heard}) > 10
    return heard


def check_heard(response: httpx.Response, alone: np.ndarray) -> None:
    """The codes are the same; samples of the decoder differ by rounding where rows share a call."""
    heard = samples(response)
    assert len(heard) == len(alone) > 0
    np.testing.assert_allclose(heard, alone, atol=2)


def test_callers_at_once_hear_what_each_hears_alone(client: httpx.Client, alone: list[np.ndarray]) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda seed: client.post(SPEECH, json=request(seed)), range(CALLERS)))
    for answer, expected in zip(answers, alone, strict=True):
        check_heard(answer, expected)


def test_a_burst_over_the_limit(
    server: RunningServer, client: httpx.Client, bundle: Path, alone: list[np.ndarray]
) -> None:
    over = CALLERS - QUEUE
    with ThreadPoolExecutor(CALLERS) as pool:
        with never_reading(server, ROWS):
            asked = [pool.submit(client.post, SPEECH, json=request(seed)) for seed in range(CALLERS)]
            wait_until(lambda: len(ended(asked)) >= over, "so many are refused")
            wait_until(lambda: value(client, "queue_depth", bundle) == QUEUE, "all others wait")
            refused = ended(asked)
            assert len(refused) == over
            assert value(client, "rows_running", bundle) == ROWS
        answers = [future.result() for future in asked]
    for seed, answer in enumerate(answers):
        if seed in refused:
            check_error(answer, 429, "queue_full")
            assert int(answer.headers["retry-after"]) > 0
        else:
            check_heard(answer, alone[seed])


def ended(asked: list[Future[httpx.Response]]) -> list[int]:
    return [seed for seed, future in enumerate(asked) if future.done()]


def test_clients_that_never_read_hold_no_row_but_their_own(
    server: RunningServer, client: httpx.Client, alone: list[np.ndarray]
) -> None:
    with never_reading(server, ROWS - 1):
        check_heard(client.post(SPEECH, json=request(7)), alone[7])


_READER = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(sys.stdin.buffer.read())
print("sent", flush=True)
while len(connection.recv(1000)):
    print("heard", flush=True)
"""


@pytest.mark.parametrize("stage", ["heard", "waiting"])
def test_a_killed_client_frees_its_row_or_its_place_in_the_queue(
    server: RunningServer, client: httpx.Client, bundle: Path, stage: str
) -> None:
    wait_until(lambda: not value(client, "rows_running", bundle), "all rows are free")
    left = value(client, "cancellations_total", bundle)
    busy = ROWS if stage == "waiting" else 0
    with never_reading(server, busy):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", _READER, str(server.port)], **pipes)
        assert process.stdin and process.stdout
        process.stdin.write(raw_request(**ENDLESS))
        process.stdin.close()
        assert process.stdout.readline() == b"sent\n"
        if stage == "heard":
            assert process.stdout.readline() == b"heard\n"
        else:
            wait_until(lambda: value(client, "queue_depth", bundle) == 1, "it waits")
        process.kill()
        process.wait()
        process.stdout.close()
        wait_until(lambda: value(client, "cancellations_total", bundle) == left + 1, "its job is dropped")
        assert (value(client, "rows_running", bundle), value(client, "queue_depth", bundle)) == (busy, 0)


def test_a_stop_under_load_waits_for_speech_and_not_for_half_requests(bundle: Path, tmp_path: Path) -> None:
    whole = raw_request(**ENDLESS)
    with (
        running(bundle, tmp_path, KW_DRAIN_SECONDS="600") as server,
        server.client() as client,
        ExitStack() as stack,
        ThreadPoolExecutor(2 * ROWS) as pool,
    ):
        for size in (0, 1, whole.index(b"\r\n") + 2, whole.index(b"\r\n\r\n") + 3):
            for _ in range(20):
                stack.enter_context(connect(server)).sendall(whole[:size])
        fields = {**ENDLESS, "voice": "alloy", "response_format": "pcm", "exact_frames": 150}
        asked = [pool.submit(client.post, SPEECH, json=fields) for _ in range(2 * ROWS)]
        wait_until(lambda: value(client, "queue_depth", bundle) == ROWS, "every row is taken")
        assert server.stop() == 0
        for future in asked:
            assert len(samples(future.result())) == 150 * 1920
