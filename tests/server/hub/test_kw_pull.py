"""A server that fetches its default model: what it answers meanwhile, afterwards, and where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from server import config
from server.cli.bundles import open_bundles, open_pull
from server.cli.errors import CommandError
from server.config import Settings
from server.graphs.checking import verify_files
from server.manifest import read_manifest
from server.models.catalogue import Bundle
from server.models.origin import note_origin
from tests.hub_server import COMMIT, StandInHub
from tests.server.answers import GOOD, check_error
from tests.server.fakes import write_bundle
from tests.server.hub.conftest import LARGE, REPO
from tests.server.running import FAKE, PATIENCE_SECONDS, run_server, wait_until

ID = "voice_fp32"


def settings(hub: StandInHub, models: Path) -> dict[str, str]:
    return {
        "KW_PULL": "on",
        "KW_MODEL": f"{REPO}@fp32",
        "KW_MODELS_DIR": str(models),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(models.parent / "home"),
    }


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "models", "other")
    return tmp_path / "models"


def test_the_server_answers_while_it_fetches_its_model_and_then_speaks(
    hub: StandInHub, models: Path, tmp_path: Path
) -> None:
    hub.stall = f"fp32/{LARGE}"
    with run_server(FAKE, tmp_path, **settings(hub, models)) as server, server.client() as client:
        assert hub.stalled.wait(PATIENCE_SECONDS)
        told = wait_until(lambda: (r := client.get("/readyz").json()).get("fetched_bytes") and r, "bytes are counted")
        assert told["status"] == "fetching"
        assert 0 < told["fetched_bytes"] < told["total_bytes"]
        assert f"the model {ID} is being fetched: " in told["message"]
        refused = client.post("/v1/audio/speech", json=GOOD)
        check_error(refused, 503, "model_fetching", "model")
        assert refused.headers["retry-after"] == "30"
        assert client.get("/livez").status_code == 200
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["other"]
        assert client.post("/v1/audio/speech", json={**GOOD, "model": "other"}).status_code == 200
        hub.go.set()
        wait_until(lambda: client.get("/readyz").status_code == 200, "the model is there")
        assert client.get("/readyz").json()["model"] == ID
        assert client.post("/v1/audio/speech", json=GOOD).status_code == 200
        assert client.get("/v1/models").json()["data"][0]["id"] == ID
        assert server.complaints(client) == []
        assert any(f"model_fetching model={ID} what=" in line and COMMIT in line for line in server.log)
    verify_files(models / ID, read_manifest(models / ID))


def test_a_stop_does_not_wait_for_the_rest_and_the_next_start_fetches_it(
    hub: StandInHub, models: Path, tmp_path: Path
) -> None:
    hub.stall = f"fp32/{LARGE}"
    with run_server(FAKE, tmp_path, **settings(hub, models)) as server:
        assert hub.stalled.wait(PATIENCE_SECONDS)
        assert server.url
        assert server.stop() == 0
    assert not (models / ID).exists()


def test_a_bundle_that_is_there_is_not_fetched(hub: StandInHub, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings(hub, models).items():
        monkeypatch.setenv(name, value)
    wanted = open_pull(config.load())
    assert wanted is not None and wanted.target == models / ID
    write_bundle(models, ID)
    assert open_pull(config.load()) is None
    assert hub.requests == []


def test_the_precision_in_the_name_of_a_repository_counts_before_that_of_the_settings(tmp_path: Path) -> None:
    write_bundle(tmp_path, "voice_bf16")
    chosen = Settings(models_dir=tmp_path, model=f"{REPO}@int8", precision="bf16")
    with pytest.raises(CommandError, match=f"no model 'voice'; there are voice_bf16; `qwen3-tts pull {REPO}@int8`"):
        open_bundles(chosen)
    write_bundle(tmp_path, "voice")
    assert open_bundles(chosen).default().id == "voice"
    plain = Settings(models_dir=tmp_path, model=REPO, precision="bf16")
    assert open_bundles(plain).default().id == "voice_bf16"


def test_a_bundle_of_another_repository_of_that_name_is_not_served_for_it(
    hub: StandInHub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_origin(write_bundle(models, ID), "you/Voice", None)
    for name, value in settings(hub, models).items():
        monkeypatch.setenv(name, value)
    chosen = config.load()
    pull = open_pull(chosen)
    assert pull is not None
    for awaited in (None, Bundle(pull.target, 0)):
        with pytest.raises(
            CommandError, match=f"KW_MODEL: the model {ID} that is there came from you/Voice; "
        ) as caught:
            open_bundles(chosen, awaited)
        assert f"pull --force {REPO}@fp32" in str(caught.value)
    assert open_bundles(chosen.model_copy(update={"model": ID})).default().id == ID


@pytest.mark.parametrize("model", [None, "other"])
def test_without_a_repository_to_fetch_from_it_does_not_start(
    models: Path, model: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Settings(pull="on", models_dir=models, model=model)
    with pytest.raises(CommandError, match="KW_PULL=on fetches the model that KW_MODEL names as OWNER/NAME") as caught:
        open_pull(chosen)
    assert caught.value.status == 2
