"""Bundles that are published: what comes to the Hub, what its card says, and what is refused before it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from server import __main__ as command
from server.hub.card import MARK
from server.hub.errors import HubError
from server.hub.pull import Pull
from server.hub.push import push
from server.manifest import MANIFEST_NAME, read_manifest
from server.models.names import HubBundle
from tests.hub_server import StandInHub
from tests.server.fakes import write_bundle
from tests.server.hub.conftest import REPO

SOURCE = {"model": "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice", "revision": "abc123", "license": "apache-2.0"}
PARITY = {
    "frames": 8,
    "codes": {"codebook 0": {"equal": 7, "compared": 8}},
    "graphs": {"codec_decoder": {"of": "samples", "max_error": 0.00538, "mean_error": 0.0001}},
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository that nobody has made yet."""
    return tmp_path / "repository"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "models", "mine", precision="int8", source=SOURCE, parity=PARITY)


@pytest.fixture
def writer(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> StandInHub:
    """The Hub, with a token that may write in the environment."""
    monkeypatch.setenv("HF_TOKEN", hub.writer)
    return hub


def publish(folder: Path, **options: Any) -> str:
    return push(folder, REPO, **{"license_id": None, "private": False, "tell": lambda line: None, **options})


def test_what_is_published_can_be_fetched(writer: StandInHub, bundle: Path, tmp_path: Path) -> None:
    assert publish(bundle) == f"{writer.url}/{REPO}/commit/1"
    folder = Pull(HubBundle(REPO, "int8"), tmp_path / "elsewhere").run()
    for name in (*read_manifest(bundle).files, MANIFEST_NAME):
        assert (folder / name).read_bytes() == (bundle / name).read_bytes()


def test_the_card_says_source_licence_parity_and_how_to_use_it(writer: StandInHub, bundle: Path) -> None:
    publish(bundle)
    card = ModelCard.load(writer.folder / "README.md")
    assert card.data.to_dict() == {
        "language": ["zh", "en", "de"],
        "license": "apache-2.0",
        "library_name": "onnx",
        "tags": ["qwen3-tts", "onnx", "onnxruntime"],
        "base_model": SOURCE["model"],
        "pipeline_tag": "text-to-speech",
    }
    for told in (
        "| int8 | 0.0 | codebook 0: 7 of 8 | 5.4e-03 |",
        f"qwen3-tts pull {REPO}@int8",
        "KW_MODEL=voice qwen3-tts serve",
        "commit `abc123`",
        f"](https://huggingface.co/{SOURCE['model']})",
    ):
        assert told in card.text


def test_bundles_of_other_precisions_stay_and_are_on_the_card(writer: StandInHub, bundle: Path, tmp_path: Path) -> None:
    publish(bundle)
    publish(write_bundle(tmp_path / "models", "mine_bf16", precision="bf16", source=SOURCE))
    rows = [line for line in (writer.folder / "README.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    assert [row.split()[1] for row in rows[1:]] == ["bf16", "int8"]
    assert (writer.folder / "int8" / MANIFEST_NAME).is_file()


def test_a_newer_bundle_replaces_the_old_one_whole(writer: StandInHub, bundle: Path) -> None:
    publish(bundle)
    (writer.folder / "int8" / "of_an_older_exporter.onnx").write_bytes(b"old")
    publish(bundle)
    assert {path.name for path in (writer.folder / "int8").iterdir()} == {*read_manifest(bundle).files, MANIFEST_NAME}


def test_a_card_that_somebody_has_written_stays(writer: StandInHub, bundle: Path) -> None:
    publish(bundle)
    card = writer.folder / "README.md"
    card.write_text(card.read_text("utf-8").replace(MARK, "By hand."), "utf-8")
    told: list[str] = []
    publish(bundle, tell=told.append)
    assert "By hand." in card.read_text("utf-8")
    assert "stays as it is" in told[0]


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(HubError) as caught:
        publish(folder, **options)
    return str(caught.value)


def test_a_bundle_that_does_not_verify_is_not_sent(writer: StandInHub, bundle: Path) -> None:
    (bundle / "talker.onnx").write_bytes(bytes(1000))
    assert refused(bundle).startswith("nothing was published: mine: talker.onnx is damaged")
    assert "manifest.json is missing" in refused(bundle.parent)
    assert writer.requests == []


def test_a_licence_must_be_known(writer: StandInHub, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "models", "local")
    assert "give the Hub's id of it, such as --license apache-2.0" in refused(folder)
    assert writer.requests == []
    publish(folder, license_id="mit")
    assert ModelCard.load(writer.folder / "README.md").data.license == "mit"


def test_without_a_token_or_with_a_wrong_one(hub: StandInHub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "publishing needs a token that may write" in refused(bundle)
    assert hub.requests == []
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    for hub.gated in (None, "hf_reader"):
        assert "set HF_TOKEN to a token that may write it" in refused(bundle)
    assert not hub.folder.exists()


def test_a_repository_of_another_checkpoint_is_not_mixed_up(writer: StandInHub, bundle: Path, tmp_path: Path) -> None:
    publish(bundle)
    other = write_bundle(tmp_path / "models", "other", precision="bf16", source={**SOURCE, "model": "Qwen/Other"})
    assert f"{REPO} holds bundles of {SOURCE['model']}" in refused(other)
    assert not (writer.folder / "bf16").exists()


def test_the_command_takes_an_id_or_a_folder(
    writer: StandInHub, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KW_MODELS_DIR", str(bundle.parent))
    for name in ("mine", str(bundle)):
        assert command.main(["push", name, REPO]) == 0
        assert capsys.readouterr().out == f"{writer.url}/{REPO}/commit/1\n"
    assert command.main(["push", "none", REPO]) == 2
    assert capsys.readouterr().err == "qwen3-tts: 'none' is no model and no folder; there are mine\n"
    (bundle.parent / "bare").mkdir()
    assert command.main(["push", str(bundle.parent / "bare"), REPO]) == 1
    assert "manifest.json is missing" in capsys.readouterr().err
