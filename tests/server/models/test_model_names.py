"""Which model a name means, and what is said where it means none."""

from __future__ import annotations

from pathlib import Path

import pytest

from server import config
from server.cli.bundles import open_bundles
from server.cli.errors import CommandError
from server.errors import ModelUnavailableError, UnknownModelError
from server.manifest import Precision
from server.models.catalogue import Bundles, find
from server.models.names import bundle_id, hub_bundle
from tests.server.fakes import write_bundle

CUSTOM, DESIGN = "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice", "Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign"
IDS = {
    "qwen3_tts_0_6b_customvoice": CUSTOM,
    "qwen3_tts_0_6b_customvoice_int4": CUSTOM,
    "qwen3_tts_1_7b_voicedesign": DESIGN,
    "qwen3_tts_tiny": "tiny",
}
DEFAULT = "qwen3_tts_tiny"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name, source in IDS.items():
        write_bundle(tmp_path / "models", name, source={"model": source, "revision": None})
    return tmp_path / "models"


def means(models: Path, name: str, precision: Precision | None = None, **aliases: str) -> str:
    return Bundles(find(models), DEFAULT, precision, aliases).resolve(name).id


@pytest.mark.parametrize(
    "name",
    [
        "", " ", "default", "Default", "none", "tts-1", "TTS-1", "tts-1 ", "tts_1", "tts-1-hd", "openai/tts-1",
        "gpt-4o-mini-tts", "tts-1-1106", "tts-1-hd-1106", "gpt-4o-mini-tts-2025-12-15",
        "openai/gpt-4o-mini-tts-2025-03-20",
        "kokoro", "Kokoro", "kokoro-82m", "hexgrad/Kokoro-82M", "onnx-community/Kokoro-82M-v1.0-ONNX", "model",
        "model_q8f16", "qwen3_tts_tiny", "QWEN3_TTS_TINY", "qwen3-tts-tiny", " Qwen3 TTS tiny",
    ],
)  # fmt: skip
def test_these_names_mean_the_default_model(models: Path, name: str) -> None:
    assert means(models, name) == DEFAULT


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen3_tts_0_6b_customvoice", "qwen3_tts_0_6b_customvoice"),
        ("qwen3-tts-0.6b-customvoice", "qwen3_tts_0_6b_customvoice"),
        ("Qwen3-TTS-0.6B-CustomVoice-int4", "qwen3_tts_0_6b_customvoice_int4"),
        (CUSTOM, "qwen3_tts_0_6b_customvoice"),
        (CUSTOM.lower(), "qwen3_tts_0_6b_customvoice"),
        ("Qwen3-TTS-12Hz-0.6B-CustomVoice", "qwen3_tts_0_6b_customvoice"),
        (DESIGN, "qwen3_tts_1_7b_voicedesign"),
    ],
)
def test_other_spellings_and_the_checkpoint_it_was_made_of(models: Path, name: str, expected: str) -> None:
    assert means(models, name) == expected


@pytest.mark.parametrize("name", ["qwen3_tts_0_6b_customvoice", "qwen3-tts-0.6b-customvoice", CUSTOM])
def test_the_wanted_precision_is_meant_by_every_spelling(models: Path, name: str) -> None:
    assert means(models, name, "int4") == "qwen3_tts_0_6b_customvoice_int4"


@pytest.mark.parametrize("name", ["tts", "tts-2", "gpt-9", "tts-1-110", "kokoros", "openai/", "qwen3", "model_q9"])
def test_an_unknown_name_is_refused_with_the_known_ones(models: Path, name: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        means(models, name)
    assert all(each in caught.value.message for each in (*IDS, "tts-1", "qwen3-tts convert --model Qwen/"))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("qwen3_tts_0_6b_customvoice", f"--model {CUSTOM} --output models/qwen3_tts_0_6b_customvoice"),
        ("Qwen3-TTS-0.6B-CustomVoice", f"--model {CUSTOM} --output models/qwen3_tts_0_6b_customvoice"),
        (CUSTOM, f"--model {CUSTOM} --output models/qwen3_tts_0_6b_customvoice"),
        (
            "qwen3_tts_1_7b_voicedesign_int4_bf16",
            f"--model {DESIGN} --precision int4_bf16 --output models/qwen3_tts_1_7b_voicedesign_int4_bf16",
        ),
        ("qwen3_tts_0_6b_base", "--model Qwen/Qwen3-TTS-12Hz-0.6B-Base --output models/qwen3_tts_0_6b_base"),
        ("qwen3_tts_1_7b_voicedesign_int5", f"--model {CUSTOM} --output models/NAME"),
        ("gpt-9", f"--model {CUSTOM} --output models/NAME"),
    ],
)
def test_the_command_that_makes_a_missing_model_is_said(tmp_path: Path, name: str, command: str) -> None:
    write_bundle(tmp_path, DEFAULT)
    with pytest.raises(UnknownModelError) as caught:
        means(tmp_path, name)
    assert caught.value.message.endswith(f"qwen3-tts convert {command}")


def test_where_there_is_no_model_the_command_is_said_too(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"qwen3-tts convert --model Qwen/"):
        Bundles([], None).resolve("tts-1")


def test_the_operators_names_mean_what_the_setting_says(models: Path) -> None:
    aliases = {"tts-1-hd": "qwen3_tts_1_7b_voicedesign", "House Voice": CUSTOM, "kokoro": "tts-1"}
    assert means(models, "TTS_1_HD", **aliases) == "qwen3_tts_1_7b_voicedesign"
    assert means(models, "house-voice", **aliases) == "qwen3_tts_0_6b_customvoice"
    assert means(models, "house-voice", "int4", **aliases) == "qwen3_tts_0_6b_customvoice_int4"
    assert means(models, "kokoro", **aliases) == DEFAULT
    assert means(models, "qwen3_tts_0_6b_customvoice", **aliases) == "qwen3_tts_0_6b_customvoice"
    with pytest.raises(UnknownModelError, match="house_voice"):
        means(models, "gpt-9", **aliases)


def open_with(models: Path, monkeypatch: pytest.MonkeyPatch, aliases: str) -> Bundles:
    monkeypatch.setenv("KW_MODELS_DIR", str(models))
    monkeypatch.setenv("KW_MODEL", DEFAULT)
    monkeypatch.setenv("KW_MODEL_ALIASES", aliases)
    return open_bundles(config.load())


def test_aliases_are_a_setting(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = open_with(models, monkeypatch, " big = qwen3_tts_1_7b_voicedesign , small=tts-1,")
    assert (bundles.resolve("big").id, bundles.resolve("Small").id) == ("qwen3_tts_1_7b_voicedesign", DEFAULT)


@pytest.mark.parametrize("aliases", ["big", "big=", "=big", "a=b=c", "big=tts-1,small"])
def test_aliases_that_are_not_pairs_are_refused(models: Path, monkeypatch: pytest.MonkeyPatch, aliases: str) -> None:
    with pytest.raises(config.SettingsError, match=r"KW_MODEL_ALIASES: .* is not NAME=MODEL"):
        open_with(models, monkeypatch, aliases)


@pytest.mark.parametrize(
    ("aliases", "message"),
    [("big=gpt-9", "no model 'gpt-9'; there are"), ("qwen3_tts_tiny=tts-1", "qwen3_tts_tiny is a model of its own")],
)
def test_aliases_of_unknown_models_or_named_like_a_model_are_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch, aliases: str, message: str
) -> None:
    with pytest.raises(CommandError, match=f"KW_MODEL_ALIASES: {message}") as caught:
        open_with(models, monkeypatch, aliases)
    assert caught.value.status == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice", "qwen3_tts_0_6b_customvoice"),
        ("Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign", "qwen3_tts_1_7b_voicedesign"),
        ("some/where/My Voice (v2)/", "my_voice_v2"),
        ("qwen3_tts_random", "qwen3_tts_random"),
        ("语音", "model"),
        ("me/CON", "con_model"),
        ("me/nul.", "nul_model"),
        ("me/Com1", "com1_model"),
        ("me/console", "console"),
    ],
)
def test_bundle_ids(name: str, expected: str) -> None:
    assert bundle_id(name, "int8") == expected
    assert bundle_id(name, "bf16") == f"{expected}_bf16"


@pytest.mark.parametrize(
    ("name", "preferred", "repo", "precision", "model"),
    [
        ("me/Qwen3-TTS-12Hz-0.6B-CustomVoice", None, "me/Qwen3-TTS-12Hz-0.6B-CustomVoice", "int8", CUSTOM),
        ("me/tts@bf16", None, "me/tts", "bf16", "tts"),
        ("me/tts", "int4", "me/tts", "int4", "tts"),
        ("me/tts@fp32", "int4", "me/tts", "fp32", "tts"),
    ],
)
def test_a_repository_of_bundles_and_where_its_bundle_comes_to(
    name: str, preferred: Precision | None, repo: str, precision: Precision, model: str
) -> None:
    wanted = hub_bundle(name, preferred)
    assert wanted is not None
    assert (wanted.repo, wanted.precision, wanted.id) == (repo, precision, bundle_id(model, precision))


@pytest.mark.parametrize(
    "name",
    [
        "tts",
        "a/b/c",
        "../models",
        "/models/tts",
        "./tts",
        "me/..",
        "me/tts@",
        ".me/tts",
        "me/tts.",
        "me/tts-",
        "me./tts",
        "",
    ],
)
def test_other_names_are_of_no_repository(name: str) -> None:
    assert hub_bundle(name) is None


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no precision q8; there are fp32, int8"):
        hub_bundle("me/tts@q8")


def test_a_model_of_the_hub_that_is_there_is_the_default_one(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KW_MODELS_DIR", str(models))
    monkeypatch.setenv("KW_MODEL", f"somebody/{CUSTOM.partition('/')[2]}@int4")
    assert open_bundles(config.load()).default().id == "qwen3_tts_0_6b_customvoice_int4"


@pytest.mark.parametrize(
    ("model", "message"),
    [("me/tts@bf16", "no model 'tts_bf16'; .*`qwen3-tts pull me/tts@bf16` fetches it"), ("me/tts@q8", "precision q8")],
)
def test_a_model_of_the_hub_that_is_not_there(
    models: Path, monkeypatch: pytest.MonkeyPatch, model: str, message: str
) -> None:
    monkeypatch.setenv("KW_MODELS_DIR", str(models))
    monkeypatch.setenv("KW_MODEL", model)
    with pytest.raises(CommandError, match=f"KW_MODEL: .*{message}") as caught:
        open_bundles(config.load())
    assert caught.value.status == 2
