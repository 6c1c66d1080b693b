"""Keys of people over HTTP: their labels in log and metrics, their limits, and keys that come and go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.http import key_file
from tests.server.answers import GOOD, check_error
from tests.server.fakes import write_bundle
from tests.server.http.test_leaving import raw_request
from tests.server.running import FAKE, KEY, RunningServer, fetch, run_server, wait_until


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def alice(keys: Path) -> str:
    """The key of the one label in the file."""
    return key_file.add(keys, "alice")


@pytest.fixture
def server(tmp_path: Path, keys: Path, alice: str) -> Iterator[RunningServer]:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_API_KEYS_FILE": str(keys)}
    with run_server(FAKE, tmp_path, **settings, KW_MAX_REQUESTS_PER_KEY="1") as server:
        server.wait_ready()
        yield server


def speak(server: RunningServer, key: str, **fields: object) -> httpx.Response:
    bearer = {"authorization": f"Bearer {key}"}
    return fetch("POST", f"{server.url}/v1/audio/speech", json={**GOOD, **fields}, headers=bearer)


def counted(server: RunningServer) -> set[str]:
    """What the metrics say of keys."""
    text = fetch("GET", f"{server.url}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    return {line for line in text.splitlines() if line.startswith("qwen3_tts_key_requests_total")}


def test_labels_are_known_and_keys_are_not(server: RunningServer, alice: str) -> None:
    assert speak(server, alice).status_code == 200
    assert speak(server, KEY, voice="nobody").status_code == 400
    assert speak(server, "sk-wrong").status_code == 401
    assert counted(server) == {
        'qwen3_tts_key_requests_total{key="alice",outcome="done"} 1.0',
        'qwen3_tts_key_requests_total{key="key2",outcome="invalid"} 1.0',
    }

    def logged(name: str) -> str | None:
        return next((line for line in server.log if f" {name} " in line and " key=alice" in line), None)

    wait_until(lambda: logged("speech") and logged("request"), "both lines are logged")
    log = "\n".join(server.log)
    assert not any(key in log for key in (alice, KEY, "sk-wrong"))


def test_keys_come_and_go_while_the_server_runs(server: RunningServer, keys: Path, alice: str) -> None:
    bob = key_file.add(keys, "bob")
    assert speak(server, bob).status_code == 200
    key_file.revoke(keys, "alice")
    check_error(speak(server, alice), 401, "invalid_api_key")
    assert speak(server, bob).status_code == 200
    keys.write_text("nonsense")
    check_error(speak(server, bob), 401, "invalid_api_key")
    wait_until(lambda: any(" keys_unreadable " in line for line in server.log), "the log says why")
    assert speak(server, KEY).status_code == 200


def test_one_key_cannot_take_every_row(server: RunningServer, alice: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(raw_request(input="hang", seed=1))  # with KEY, the second key of the setting
        server.wait_event("submitted", seed=1)
        response = speak(server, KEY)
        check_error(response, 429, "key_limit")
        assert int(response.headers["retry-after"]) > 0
        assert fetch("GET", f"{server.url}/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        with socket.create_connection(("127.0.0.1", server.port)) as other:
            other.sendall(raw_request(seed=2).replace(KEY.encode(), alice.encode()))
            server.wait_event("submitted", seed=2)
    server.wait_event("dropped", seed=1)
    wait_until(lambda: speak(server, KEY).status_code == 200, "the place is free again")
    assert 'qwen3_tts_key_requests_total{key="key2",outcome="key_limit"} 1.0' in counted(server)
