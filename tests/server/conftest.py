"""Servers for the tests: one with the fake engine, one real one with the bundle that the repository ships."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.bundles import RANDOM_BUNDLE
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, REAL, RunningServer, run_server


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The bundle that the real clients talk to."""
    return RANDOM_BUNDLE


@pytest.fixture(scope="session")
def real_server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`python -m server` with that bundle as its default model."""
    scratch = tmp_path_factory.mktemp("real")
    with run_server(REAL, scratch, KW_MODELS_DIR=str(bundle.parent), KW_MODEL=bundle.name) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def fake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The server on the fake engine, with a CustomVoice and a VoiceDesign bundle."""
    scratch = tmp_path_factory.mktemp("fake")
    models = scratch / "models"
    write_bundle(models, "custom")
    write_bundle(
        models, "design", model_type="voice_design", speakers={}, follows_instructions=True, languages={"english": 1}
    )
    with run_server(FAKE, scratch, KW_MODELS_DIR=str(models), FAKE_FRAME_SECONDS="0.005") as server:
        server.wait_ready()
        yield server


@pytest.fixture
def client(fake_server: RunningServer) -> Iterator[httpx.Client]:
    """A client of that server, with a key."""
    with fake_server.client() as client:
        yield client
