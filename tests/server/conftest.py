"""A server with the fake engine, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.server.fakes import write_bundle
from tests.server.running import FAKE, RunningServer, run_server


@pytest.fixture(scope="session")
def fake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The server on the fake engine, with a CustomVoice and a VoiceDesign bundle.

    Modules share it: a test that counts what the server did counts from where it began.
    """
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


@pytest.fixture
def visitor(fake_server: RunningServer) -> Iterator[httpx.Client]:
    """A client of that server, without a key."""
    with fake_server.client(None) as client:
        yield client
