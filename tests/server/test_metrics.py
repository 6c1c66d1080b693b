"""What Prometheus reads after some requests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.server.answers import GOOD, check_error
from tests.server.fakes import write_bundle
from tests.server.http.test_leaving import raw_request
from tests.server.running import FAKE, RunningServer, fetch, run_server, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    for name in ("one", "two"):
        write_bundle(tmp_path / "models", name)
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_MAX_QUEUE": "1", "FAKE_FRAME_SECONDS": "0.01"}
    with run_server(FAKE, tmp_path, **settings) as server:
        server.wait_ready()
        yield server


def read(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """Every sample: its name and label values (in order of the label's name), and its value."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (
            sample.name.removeprefix("qwen3_tts_"),
            *(sample.labels[label] for label in sorted(sample.labels)),
        ): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_metrics_need_a_key(server: RunningServer) -> None:
    check_error(fetch("GET", f"{server.url}/metrics"), 401, "invalid_api_key")


def test_requests_are_counted_by_model_format_and_outcome(server: RunningServer) -> None:
    with server.client() as client:
        for fields in (
            {},
            {"response_format": "mp3", "stream_format": "audio"},
            {"input": "fail-later", "stream": False},
            {"model": "two"},
            {"voice": "nobody"},
            {"model": "three"},
            {"response_format": "opuss"},
        ):
            client.post("/v1/audio/speech", json={**GOOD, **fields})
        with socket.create_connection(("127.0.0.1", server.port)) as leaving:
            leaving.sendall(raw_request(seed=1))
            server.wait_event("submitted", seed=1)
            wait_until(lambda: read(client)["rows_running", "one"] == 1, "the row runs")
            with socket.create_connection(("127.0.0.1", server.port)) as waiting:
                waiting.sendall(raw_request(seed=2))
                server.wait_event("submitted", seed=2)
                assert read(client)["queue_depth", "one"] == 1
                assert client.post("/v1/audio/speech", json=GOOD).status_code == 429
        server.wait_event("dropped", seed=1)
        wait_until(lambda: read(client).get(("requests_total", "pcm", "one", "stopped")) == 2, "both are counted")
        found = read(client)
    requests = {key[1:]: value for key, value in found.items() if key[0] == "requests_total"}
    assert requests == {
        ("pcm", "one", "done"): 1,
        ("mp3", "one", "done"): 1,
        ("pcm", "one", "failed"): 1,
        ("pcm", "two", "done"): 1,
        ("pcm", "one", "invalid"): 1,
        ("pcm", "unknown", "invalid"): 1,
        ("unknown", "unknown", "invalid"): 1,
        ("pcm", "one", "stopped"): 2,
        ("pcm", "one", "queue_full"): 1,
    }
    assert found["audio_seconds_total", "two"] == pytest.approx(5 * 0.08)
    assert found["ttfa_seconds_count", "two"] == found["real_time_factor_count", "two"] == 1
    assert found["real_time_factor_count", "one"] == 2
    assert found["frame_seconds_count", "two"] == found["frames_total", "two"] == 5
    assert found["frame_seconds_sum", "two"] == pytest.approx(0.05)
    assert found["queue_wait_seconds_count", "two"] == found["prefill_seconds_count", "two"] == 1
    assert found["cancellations_total", "one"] == 2
    assert found["runaways_total", "one"] == found["retries_total", "one"] == 0
    assert found["model_loads_total", "one", "loaded"] == found["model_loads_total", "two", "loaded"] == 1
    assert found["model_load_seconds_count", "two"] == 1
    assert found["models_loaded",] == 2
    assert (found["rows_running", "one"], found["queue_depth", "one"]) == (0, 0)
    assert found["process_resident_memory_bytes",] > 1e6


def test_answers_are_counted_by_status(server: RunningServer) -> None:
    with server.client() as client:
        before = {key[1]: value for key, value in read(client).items() if key[0] == "http_answers_total"}
        assert fetch("GET", f"{server.url}/v1/models").status_code == 401
        assert client.get("/nowhere").status_code == 404
        assert client.put("/v1/models").status_code == 405
        assert client.post("/v1/audio/speech", content=iter([bytes(3 << 20)])).status_code == 413
        assert client.post("/v1/audio/speech", json={**GOOD, "input": "fail-at-start"}).status_code == 500
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            connection.recv(1)
        found = {key[1]: value for key, value in read(client).items() if key[0] == "http_answers_total"}
    # A status from before, such as 503 while the model was loaded, has not grown.
    more = {status: grown for status in found if (grown := found[status] - before.get(status, 0))}
    assert more.pop("200") >= 1
    assert more == {"401": 1, "404": 1, "405": 1, "413": 1, "500": 1, "400": 1}


def test_models_that_die_are_counted(server: RunningServer) -> None:
    with server.client() as client:
        client.post("/v1/audio/speech", json={**GOOD, "input": "die"})
        found = read(client)
        assert found["model_unloads_total", "one", "died"] == 1
        wait_until(lambda: read(client)["model_loads_total", "one", "loaded"] == 2, "the engine is there again")


def test_the_log_tells_how_long_what_took(server: RunningServer) -> None:
    with server.client() as client:
        client.post("/v1/audio/speech", json=GOOD)
    line = wait_until(lambda: next((line for line in server.log if " speech id=" in line), None), "it is logged")
    fields = dict(pair.split("=", 1) for pair in line.split()[3:])
    assert 0 <= float(fields["queue_seconds"]) <= float(fields["ttfa_seconds"]) <= float(fields["wall_seconds"])
