"""Every voice that is listed can be asked for by its id, and the speaker that is listed with it is the one heard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server import __main__ as command
from server.cli import serve, startup
from server.engine.bundle import open_prompts
from server.manifest import Manifest, read_manifest
from server.voices.catalogue import profile, voices_of
from server.voices.profiles import built_in, load_profiles
from tests.bundles import RANDOM_BUNDLE, TINY_BUNDLE
from tests.server.answers import GOOD, check_error
from tests.server.fakes import EVENTS, FakeEngine, write_bundle
from tests.server.running import FAKE, RunningServer, run_server

AWKWARD = (
    "my voice", "my_voice", "dr. anna", "anna+max", "anna", "star*1", "star", "ryan*0.5+star*0.5", "Ryan", "UNCLE FU",
    "Zoë", "アンナ", "o'neil \"o\"", " edge ", "alloy", "+", "*", "-", "a/b", "%41", "design", "auto",
)  # fmt: skip
"""Speakers as a fine-tune or a hand-made manifest may call them."""
PROFILES = {
    "mine": {"speaker": "My Voice", "speed": 0.9},
    "sums": {"speaker": "Anna+Max"},
    "star_soft": {"speaker": "star*1", "gender": "female", "description": "Soft."},
    "first": {"speaker": "Ryan"},
    "by_alias": {"speaker": "nova"},
    "anyone": {},
    "stranger": {"speaker": "somebody else"},
}
BUNDLES: dict[str, dict[str, Any]] = {
    "awkward": {"speakers": {name: {"id": number} for number, name in enumerate(AWKWARD)}},
    "one": {"speakers": {"my voice": {"id": 7}}},
    "ours": {},
    "design": {"model_type": "voice_design", "speakers": {}, "follows_instructions": True},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    scratch = tmp_path_factory.mktemp("voices")
    for name, changes in BUNDLES.items():
        write_bundle(scratch / "models", name, **changes)
    (scratch / "voices.json").write_text(json.dumps({"profiles": PROFILES}))
    settings = {"KW_MODELS_DIR": str(scratch / "models"), "KW_VOICES_FILE": str(scratch / "voices.json")}
    with run_server(FAKE, scratch, **settings) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def listed(client: httpx.Client, model: str) -> dict[str, dict[str, Any]]:
    response = client.get("/v1/audio/voices", params={"model": model})
    assert response.status_code == 200, response.text
    voices = response.json()["voices"]
    assert len({voice["id"] for voice in voices}) == len(voices)
    return {voice["id"]: voice for voice in voices}


def speaker_of(client: httpx.Client, server: RunningServer, model: str, voice: str) -> str | None:
    """The speaker that reaches the engine."""
    response = client.post("/v1/audio/speech", json={**GOOD, "model": model, "voice": voice, "exact_frames": 1})
    assert response.status_code == 200, (voice, response.text)
    speaker: str | None = server.events("prompt")[-1]["speaker"]
    return speaker


@pytest.mark.parametrize("model", BUNDLES)
def test_every_listed_voice_speaks(client: httpx.Client, server: RunningServer, model: str) -> None:
    voices = listed(client, model)
    speakers = BUNDLES[model].get("speakers")
    assert set(voices) >= {*built_in().aliases, *built_in().profiles, "anyone", "first", "by_alias"}
    assert set(voices) >= set(AWKWARD if model == "awkward" else speakers or ())
    for name, voice in voices.items():
        assert speaker_of(client, server, model, name) == voice["speaker"], name
        if voice["alias_of"] is None:
            assert not voice["stand_in"]
        else:
            heard = voices[voice["alias_of"]]
            assert (heard["speaker"], heard["alias_of"]) == (voice["speaker"], None)
            assert (heard["gender"], heard["language"]) == (voice["gender"], voice["language"])


@pytest.mark.parametrize(
    ("voice", "speaker"),
    [
        *((name, name) for name in AWKWARD),
        ("MY VOICE", "my_voice"),
        ("Dr. Anna", "dr. anna"),
        ("ANNA+MAX", "anna+max"),
        ("STAR*1", "star*1"),
        ("ryan", "Ryan"),
        ("uncle_fu", "UNCLE FU"),
        ("zoë", "Zoë"),
        ("ash", "Ryan"),
        ("ryan_clear", "Ryan"),
        ("mine", "my_voice"),
        ("sums", "anna+max"),
        ("star_soft", "star*1"),
    ],
)
def test_the_name_itself_goes_before_its_plain_form(
    client: httpx.Client, server: RunningServer, voice: str, speaker: str
) -> None:
    assert speaker_of(client, server, "awkward", voice) == speaker


@pytest.mark.parametrize(
    ("formula", "speaker"),
    [
        ("my voice*0.6+star*0.4", "my voice"),
        ("My_Voice * 0.6 + star * 0.4", "my_voice"),
        ("star*0.4 + dr. anna*0.6", "dr. anna"),
        ("anna+max*0.6+star*0.4", "anna+max"),
        ("Anna+Max * 0.6 + star*0.4", "anna+max"),
        ("star*0.4+anna+max*0.6", "anna+max"),
        ("star*0.4+star*1*0.6", "star*1"),
        ("star*1.0", "star"),
        ("zoë*0.6+ryan*0.4", "Zoë"),
        ("ryan*0.5+star*0.5*0.6+anna*0.4", "ryan*0.5+star*0.5"),
        ("ry an*0.6 + star*0.4", "Ryan"),
        ("mine*0.6+alloy*0.4", "my_voice"),
    ],
)
def test_terms_of_a_formula_are_found_likewise(
    client: httpx.Client, server: RunningServer, formula: str, speaker: str
) -> None:
    assert speaker_of(client, server, "awkward", formula) == speaker


def test_a_profile_whose_speaker_one_model_lacks(client: httpx.Client, server: RunningServer) -> None:
    for model in ("ours", "one", "awkward"):
        assert "stranger" not in listed(client, model)
        response = client.post("/v1/audio/speech", json={**GOOD, "model": model, "voice": "stranger"})
        message = check_error(response, 400, "invalid_value", "voice")
        assert message.startswith("the voice stranger needs the speaker somebody else: this model's voices are ")
        (line,) = [line for line in server.log if "voices_left_out" in line and f"model={model}" in line]
        assert " WARNING " in line
        assert "stranger needs the speaker somebody else" in line
    assert "stranger" in listed(client, "design"), "which needs no speaker"


def test_stand_ins_are_marked_and_come_last(client: httpx.Client) -> None:
    voices = listed(client, "one")
    assert next(iter(voices)) == "my voice"
    marks = [voice["stand_in"] for voice in voices.values()]
    assert marks == sorted(marks)
    real = {name for name, voice in voices.items() if not voice["stand_in"]}
    assert real == {"my voice", "mine", "anyone"}
    shown = ("name", "gender", "alias_of", "speaker", "description")
    assert [voices["uncle_fu_clear"][field] for field in shown] == [
        "Uncle Fu Clear (My Voice)", None, "my voice", "my voice", ""
    ]  # fmt: skip
    assert [voices["onyx"][field] for field in shown] == ["onyx (My Voice)", None, "my voice", "my voice", ""]
    assert not any(voice["stand_in"] for voice in listed(client, "ours").values())
    soft = listed(client, "awkward")["star_soft"]
    assert (soft["stand_in"], soft["gender"], soft["description"]) == (False, "female", "Soft.")


def test_the_command_lines_default_voice_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "models", "one", **BUNDLES["one"])
    monkeypatch.setenv("KW_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv(EVENTS, str(tmp_path / "events"))
    for module in (serve, startup):
        monkeypatch.setattr(module, "engine_loader", lambda settings: FakeEngine.load)
    assert command.main(["say", "Hello", "-o", str(tmp_path / "a.wav"), "--exact-frames", "1"]) == 0
    assert json.loads((tmp_path / "events").read_text().splitlines()[0])["speaker"] == "my voice"
    assert "voice my voice" in capsys.readouterr().err
    assert command.main(["voices"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("my voice\n")
    assert f"{'uncle_fu_clear':<20} stand-in, speaks as my voice\n" in printed
    assert f"{'alloy':<20} stand-in, speaks as my voice\n" in printed


def test_the_command_line_says_who_stands_in_and_the_gender_that_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "models", "one", speakers={"ryan": {"id": 7}})
    monkeypatch.setenv("KW_MODELS_DIR", str(tmp_path / "models"))
    assert command.main(["voices"]) == 0
    printed = capsys.readouterr().out
    assert f"{'alloy':<20} stand-in, speaks as ryan, male\n" in printed
    assert f"{'ash':<20} means ryan\n" in printed


def test_the_embedded_model_says_who_speaks() -> None:
    manifest, profiles = read_manifest(TINY_BUNDLE), load_profiles(None)
    prompts = open_prompts(TINY_BUNDLE, manifest)
    (own, *others) = voices_of(manifest, profiles)
    assert (own.id, own.speaker, own.stand_in) == ("hibari", "hibari", False)
    for voice in others:
        assert (voice.stand_in, voice.alias_of, voice.gender, voice.description) == (True, "hibari", None, ""), voice.id
        assert voice.name.endswith("(Hibari)")
        found = profile(voice.id, manifest, profiles)
        assert (found.speaker, found.gender) == ("hibari", None)
        assert len(prompts.build("Hi", speaker=found.speaker, language="english", instruction=None))


def test_the_prompt_holds_the_speaker_of_that_very_name() -> None:
    plain = read_manifest(RANDOM_BUNDLE)
    names = {"serena": "My Voice", "ryan": "my voice", "eric": "anna+max"}
    raw = plain.model_dump() | {"speakers": {names[name]: speaker for name, speaker in plain.speakers.items()}}
    raw["languages"] = {name.title(): number for name, number in plain.languages.items()}
    raw["speakers"]["anna+max"] = {"id": plain.speakers["eric"].id, "dialect": "Sichuan_Dialect"}
    awkward = Manifest.model_validate(raw)
    expected, found = open_prompts(RANDOM_BUNDLE, plain), open_prompts(RANDOM_BUNDLE, awkward)
    for own, name in names.items():
        for language in ("english", "chinese", "auto"):
            wanted = expected.build("Hello", speaker=own, language=language, instruction=None)
            said = language if language == "auto" else language.title()
            got = found.build("Hello", speaker=profile(name, awkward, {}).speaker, language=said, instruction=None)
            assert got.embeddings.tobytes() == wanted.embeddings.tobytes()
