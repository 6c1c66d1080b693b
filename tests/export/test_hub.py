"""Checkpoints from a Hub: what is fetched, what is taken up again, and what each refusal says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import COMMIT, REPO, StandInHub
from tests.server.running import PATIENCE_SECONDS

_FETCH = """
import sys
from export.hub import HubError, download
try:
    print(download(sys.argv[1], ["*.json", "model*.safetensors"], sys.argv[2] or None))
except HubError as error:
    sys.exit(f"HubError: {error}")
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[StandInHub]:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(12 << 20))
    (folder / "picture.png").write_bytes(b"not wanted")
    with StandInHub(folder) as stand_in:
        yield stand_in


def fetch(
    home: Path, endpoint: str, *, repo: str = REPO, revision: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Download in a process of its own, since huggingface_hub reads its settings when it is imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", _FETCH, repo, revision],
        env={name: value for name, value in os.environ.items() if not name.startswith("HF_")} | settings,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_fetches_the_wanted_files_into_the_cache(hub: StandInHub, tmp_path: Path) -> None:
    result = fetch(tmp_path / "home", hub.url)
    snapshot = Path(result.stdout.strip())
    assert result.returncode == 0, result.stderr
    assert snapshot.name == COMMIT
    assert (tmp_path / "home") in snapshot.parents
    assert hub.fetched() == {"config.json", "model.safetensors"}
    assert (snapshot / "model.safetensors").read_bytes() == (hub.folder / "model.safetensors").read_bytes()


def test_a_broken_download_is_taken_up_where_it_stopped(hub: StandInHub, tmp_path: Path) -> None:
    hub.cut["model.safetensors"] = 11 << 20  # huggingface_hub keeps whole blocks of 10 MiB
    first = fetch(tmp_path / "home", hub.url)
    assert first.returncode == 1
    assert "broke off" in first.stderr
    assert "run the same command again" in first.stderr
    hub.requests.clear()
    second = fetch(tmp_path / "home", hub.url)
    assert second.returncode == 0, second.stderr
    ranges = [asked for method, path, asked in hub.requests if method == "GET" and path.endswith("model.safetensors")]
    assert ranges == [f"bytes={10 << 20}-"]
    copy = Path(second.stdout.strip()) / "model.safetensors"
    assert copy.read_bytes() == (hub.folder / "model.safetensors").read_bytes()


def test_a_gated_repository_says_what_to_do(hub: StandInHub, tmp_path: Path) -> None:
    hub.gated = "hf_right"
    without = fetch(tmp_path / "home", hub.url)
    wrong = fetch(tmp_path / "home", hub.url, HF_TOKEN="hf_wrong")
    for refused in (without, wrong):
        assert refused.returncode == 1
        assert f"{REPO} is gated" in refused.stderr
        assert "HF_TOKEN" in refused.stderr
    right = fetch(tmp_path / "home", hub.url, HF_TOKEN="hf_right")
    assert right.returncode == 0, right.stderr


@pytest.mark.parametrize(
    ("repo", "revision", "message"),
    [
        ("Qwen/No-Such-Model", "", "Qwen/No-Such-Model is unknown to http://127.0.0.1"),
        (REPO, "v9", f"{REPO} has no revision 'v9'"),
        ("a/b/c", "", "'a/b/c' is neither a folder here nor a Hub id"),
    ],
)
def test_what_the_hub_does_not_have(hub: StandInHub, tmp_path: Path, repo: str, revision: str, message: str) -> None:
    result = fetch(tmp_path / "home", hub.url, repo=repo, revision=revision)
    assert result.returncode == 1
    assert f"HubError: {message}" in result.stderr


def test_an_unreachable_hub_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = fetch(tmp_path / "home", endpoint)
    assert result.returncode == 1
    assert f"HubError: {endpoint} cannot be reached" in result.stderr


def test_a_failing_hub_is_named(hub: StandInHub, tmp_path: Path) -> None:
    hub.broken = True
    result = fetch(tmp_path / "home", hub.url)
    assert result.returncode == 1
    assert f"{hub.url} answered HTTP 500 for {REPO}" in result.stderr


def test_offline_uses_the_cache_or_says_that_it_is_empty(hub: StandInHub, tmp_path: Path) -> None:
    absent = fetch(tmp_path / "home", hub.url, HF_HUB_OFFLINE="1")
    assert absent.returncode == 1
    assert "is not in the cache" in absent.stderr
    assert "HF_HUB_OFFLINE is set" in absent.stderr
    online = fetch(tmp_path / "home", hub.url)
    hub.requests.clear()
    cached = fetch(tmp_path / "home", hub.url, HF_HUB_OFFLINE="1")
    assert cached.returncode == 0, cached.stderr
    assert cached.stdout == online.stdout
    assert hub.requests == []
