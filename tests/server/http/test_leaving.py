"""Clients that leave, queues that are full, and health while speech is made."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.answers import GOOD, check_error
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, KEY, RunningServer, run_server, wait_until

LONG = {**GOOD, "exact_frames": 2000}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    scratch = tmp_path_factory.mktemp("leaving")
    write_bundle(scratch / "models", "custom")
    settings = {"KW_MODELS_DIR": str(scratch / "models"), "KW_MAX_QUEUE": "1", "FAKE_FRAME_SECONDS": "0.05"}
    with run_server(FAKE, scratch, **settings) as server:
        server.wait_ready()
        yield server


def raw_request(**fields: Any) -> bytes:
    body = json.dumps({**LONG, **fields}).encode()
    headers = f"Host: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}"
    return f"POST /v1/audio/speech HTTP/1.1\r\n{headers}\r\n\r\n".encode() + body


def connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("abrupt", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_a_client_that_leaves_stops_its_job(server: RunningServer, stream: bool, abrupt: bool, warm: bool) -> None:
    seed = 1000 + 4 * stream + 2 * abrupt + warm
    with connect(server) as connection:
        if warm:  # a request before it on the same connection
            connection.sendall(raw_request(exact_frames=1, response_format="pcm", stream=False))
            received = b""
            while received.count(b"\r\n\r\n") < 1 or len(received.partition(b"\r\n\r\n")[2]) < 3840:
                received += connection.recv(65536)
        connection.sendall(raw_request(seed=seed, stream=stream))
        server.wait_event("submitted", seed=seed)
        if stream:
            connection.recv(1)
        if abrupt:  # reset instead of a polite end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    dropped = server.wait_event("dropped", seed=seed)
    assert dropped["frames"] < 2000


def test_a_large_body_does_not_hide_the_leaving(server: RunningServer) -> None:
    with connect(server) as connection:
        connection.sendall(raw_request(seed=2000, padding="x" * 300_000))
        server.wait_event("submitted", seed=2000)
    server.wait_event("dropped", seed=2000)


def test_a_waiting_job_leaves_the_queue_too(server: RunningServer) -> None:
    with connect(server) as first:
        first.sendall(raw_request(seed=3000))
        server.wait_event("submitted", seed=3000)
        with connect(server) as second:
            second.sendall(raw_request(seed=3001))
            server.wait_event("submitted", seed=3001)
    server.wait_event("dropped", seed=3000)
    assert server.wait_event("dropped", seed=3001)["frames"] == 0


def test_a_full_queue_and_health_beside_it(server: RunningServer) -> None:
    with connect(server) as running, connect(server) as waiting, server.client() as client:
        running.sendall(raw_request(seed=4000))
        server.wait_event("submitted", seed=4000)
        waiting.sendall(raw_request(seed=4001))
        server.wait_event("submitted", seed=4001)
        for stream in (False, True):
            response = client.post("/v1/audio/speech", json={**LONG, "stream": stream})
            check_error(response, 429, "queue_full")
            assert int(response.headers["retry-after"]) > 0
        assert client.get("/livez").json() == {"status": "alive"}
        assert client.get("/readyz").json()["status"] == "ready"
        assert not {4000, 4001} & {event["seed"] for event in server.events("finished")}
    server.wait_event("dropped", seed=4000)
    server.wait_event("dropped", seed=4001)


def test_a_dead_engine_is_replaced(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    gate = tmp_path / "gate"
    gate.touch()
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_GATE": str(gate)}
    with run_server(FAKE, tmp_path, **settings) as server, server.client() as client:
        server.wait_ready()
        gate.unlink()
        check_error(client.post("/v1/audio/speech", json={**GOOD, "input": "die"}), 500, "speech_failed")
        for answer in (client.post("/v1/audio/speech", json=GOOD), client.get("/readyz")):
            check_error(answer, 503, "model_restarting", "model")
            assert int(answer.headers["retry-after"]) > 0
        assert client.get("/livez").status_code == 200
        gate.touch()
        wait_until(lambda: client.get("/readyz").status_code == 200, "the engine is there again")
        assert len(client.post("/v1/audio/speech", json=GOOD).content) == 5 * 3840
