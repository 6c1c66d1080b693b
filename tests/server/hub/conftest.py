"""A Hub on the loopback with one repository, which huggingface_hub takes for the real one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download

from server.manifest import MANIFEST_NAME
from tests.hub_server import StandInHub
from tests.server.fakes import write_bundle

REPO = "me/Voice"
LARGE = "talker.onnx_data"
LARGE_BYTES = 3 << 19
BLOCK = 10 << 20
"""huggingface_hub goes on after whole blocks of so many bytes."""


def use(endpoint: str, patch: pytest.MonkeyPatch) -> None:
    """Have huggingface_hub ask this address; it has read its settings already."""
    patch.setattr(constants, "ENDPOINT", endpoint)
    address = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # which has it depends on the version
        patch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", address, raising=False)


def add_file(bundle: Path, name: str, content: bytes) -> None:
    """Give a bundle one more file."""
    (bundle / name).write_bytes(content)
    manifest = json.loads((bundle / MANIFEST_NAME).read_text("utf-8"))
    manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / MANIFEST_NAME).write_text(json.dumps(manifest), "utf-8")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The repository's folder: a card, and one bundle in `fp32`."""
    folder = tmp_path / "repository"
    bundle = write_bundle(folder, "fp32")
    add_file(bundle, LARGE, os.urandom(LARGE_BYTES))
    (folder / "README.md").write_text("a card", "utf-8")
    return folder


@pytest.fixture
def hub(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with StandInHub(repository, repo=REPO) as stand_in:
        use(stand_in.url, monkeypatch)
        yield stand_in
