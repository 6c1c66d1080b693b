"""SIGTERM under load: what runs may finish, what is new is refused, what takes too long is broken off."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.server.answers import GOOD, check_error
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, RunningServer, fetch, run_server, wait_until

LONG = {**GOOD, "exact_frames": 2000}
BROKEN = (httpx.RemoteProtocolError, httpx.ReadError)


def log_line(server: RunningServer, text: str) -> str:
    return str(wait_until(lambda: next((line for line in server.log if text in line), None), text))


def test_sigterm_lets_running_speech_finish(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_FRAME_SECONDS": "0.02"}
    with run_server(FAKE, tmp_path, **settings) as server, server.client() as client:
        server.wait_ready()
        answers: list[httpx.Response] = []
        fields = {**GOOD, "exact_frames": 50, "seed": 1}
        asking = threading.Thread(target=lambda: answers.append(client.post("/v1/audio/speech", json=fields)))
        asking.start()
        server.wait_event("submitted", seed=1)
        assert server.stop() == 0
        asking.join()
    assert len(answers[0].content) == 50 * 3840
    assert " stopped" in server.log[-1]


def test_sigterm_does_not_wait_for_speech_without_end(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_FRAME_SECONDS": "0.5", "KW_DRAIN_SECONDS": "0.2"}
    with run_server(FAKE, tmp_path, **settings) as server, server.client() as client:
        server.wait_ready()
        with client.stream("POST", "/v1/audio/speech", json={**LONG, "stream_format": "audio"}) as response:
            parts = response.iter_raw()
            next(parts)
            assert server.stop() == 0
            with pytest.raises(BROKEN):
                list(parts)


def test_a_whole_file_that_is_cut_breaks_its_connection(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_FRAME_SECONDS": "0.05", "KW_DRAIN_SECONDS": "0"}
    with run_server(FAKE, tmp_path, **settings) as server, server.client() as client:
        server.wait_ready()
        errors: list[Exception] = []

        def ask() -> None:
            try:
                client.post("/v1/audio/speech", json={**LONG, "seed": 1})
            except httpx.HTTPError as error:
                errors.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        server.wait_event("submitted", seed=1)
        assert server.stop() == 0
        asking.join()
    assert isinstance(errors[0], BROKEN)


def test_connections_that_are_open_learn_that_the_server_drains(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_FRAME_SECONDS": "0.05", "KW_DRAIN_SECONDS": "600"}
    with (
        run_server(FAKE, tmp_path, **settings) as server,
        server.client() as speaking,
        server.client() as probe,
        server.client() as late,
    ):
        server.wait_ready()
        assert probe.get("/readyz").status_code == late.get("/livez").status_code == 200
        with speaking.stream("POST", "/v1/audio/speech", json={**LONG, "stream_format": "audio"}) as response:
            parts = response.iter_raw()
            next(parts)
            server.process.send_signal(signal.SIGTERM)
            log_line(server, " draining ")
            answer = probe.get("/readyz")
            assert (answer.status_code, answer.json()["status"]) == (503, "draining")
            assert answer.headers["connection"] == "close"
            refused = late.post("/v1/audio/speech", json=GOOD)
            check_error(refused, 503, "stopping")
            assert int(refused.headers["retry-after"]) > 0
            with pytest.raises(httpx.ConnectError):
                fetch("GET", f"{server.url}/livez")
            next(parts)  # the stream goes on
            assert server.stop() == 0  # a second signal ends it at once
            with pytest.raises(BROKEN):
                list(parts)


def test_all_goes_on_while_balancers_learn_that_the_server_leaves(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_DRAIN_DELAY_SECONDS": "600"}
    with run_server(FAKE, tmp_path, **settings) as server, server.client() as client:
        server.wait_ready()
        server.process.send_signal(signal.SIGTERM)
        log_line(server, " leaving ")
        for path in ("/readyz", "/health"):
            answer = fetch("GET", server.url + path)
            assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        assert fetch("GET", f"{server.url}/livez").status_code == 200
        answer = client.post("/v1/audio/speech", json=GOOD)
        assert (answer.status_code, answer.headers["connection"]) == (200, "keep-alive")
        assert not any(" draining " in line for line in server.log)
        assert server.stop() == 0  # a second signal ends it at once


def test_the_delay_comes_to_its_end(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_DRAIN_DELAY_SECONDS": "0.2"}
    with run_server(FAKE, tmp_path, **settings) as server:
        server.wait_ready()
        assert server.stop() == 0
        leaving, draining = (
            next(n for n, line in enumerate(server.log) if name in line) for name in (" leaving ", " draining ")
        )
        assert leaving < draining
