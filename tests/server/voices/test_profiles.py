"""The catalogue of profiles, the operator's own, and what a voice means."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.voices.catalogue import profile
from server.voices.profiles import Profile, ProfileError, ProfileSampling, built_in, load_profiles
from tests.server.fakes import SPEAKERS, manifest_of

PROFILES = load_profiles(None)


def manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate(manifest_of("m", **changes))


def speakers(*names: str) -> dict[str, Any]:
    return {name: {"id": number, "dialect": None} for number, name in enumerate(names)}


def write(folder: Path, profiles: Any) -> Path:
    path = folder / "voices.json"
    path.write_text(json.dumps({"profiles": profiles}))
    return path


def test_every_speaker_has_at_least_four_profiles() -> None:
    counts = Counter(entry.speaker for entry in PROFILES.values())
    assert set(counts) == set(SPEAKERS) == set(built_in().speakers)
    assert min(counts.values()) >= 4
    assert {"serena_meditation", "ryan_clear"} <= set(PROFILES)
    assert {f"{speaker}_clear" for speaker in SPEAKERS} <= set(PROFILES)


def test_every_built_in_profile_is_whole() -> None:
    for name, entry in PROFILES.items():
        assert entry.speaker is not None, name
        assert name.startswith(f"{entry.speaker}_")
        assert entry.gender == built_in().speakers[entry.speaker].gender, name
        assert entry.language in ("auto", built_in().speakers[entry.speaker].language), name
        assert entry.tags, name
        for line in (entry.description, entry.instruction):
            assert line is not None and line.endswith("."), name
            assert len(line) <= 120, name


def test_profiles_are_no_copies_and_take_no_other_name() -> None:
    assert len({entry.description for entry in PROFILES.values()}) == len(PROFILES)
    assert len({entry.instruction for entry in PROFILES.values()}) == len(PROFILES)
    assert not set(PROFILES) & {*SPEAKERS, *built_in().aliases}


@pytest.mark.parametrize("voice", ["serena_meditation", "Serena Meditation", " SERENA_meditation "])
def test_a_profile_is_found_in_any_case(voice: str) -> None:
    found = profile(voice, manifest(), PROFILES)
    assert (found.speaker, found.language, found.speed) == ("serena", "auto", 0.9)
    assert found.sampling.temperature == 0.8
    assert found.instruction == PROFILES["serena_meditation"].instruction


@pytest.mark.parametrize("voice", ["ryan", "Uncle Fu", "alloy", "af_heart"])
def test_a_speaker_or_alias_is_a_plain_profile(voice: str) -> None:
    found = profile(voice, manifest(), PROFILES)
    speaker = profile(voice, manifest(), {}).speaker
    assert speaker is not None
    assert found == Profile(speaker=speaker, gender=built_in().speakers[speaker].gender)
    assert (found.instruction, found.speed, found.sampling) == (None, 1.0, ProfileSampling())


@pytest.mark.parametrize(
    ("formula", "heaviest"),
    [
        ("ryan_clear*0.3 + serena_meditation*0.7", "serena_meditation"),
        ("ryan*0.5+serena_story*0.5", "ryan"),
        ("af_heart*0.4+aiden_clear*0.6", "aiden_clear"),
    ],
)
def test_of_a_formula_the_heaviest_is_meant(formula: str, heaviest: str) -> None:
    assert profile(formula, manifest(), PROFILES) == profile(heaviest, manifest(), PROFILES)


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        ("nobody", "^there is no such voice; this model's voices are"),
        ("serena_nothing", "^there is no such voice; this model's voices are"),
        ("ryan*0.9+nobody*0.1", "^term 2 of the voice formula names no voice; this model's voices are"),
        ("nobody+ryan(2)", "^term 1 of the voice formula names no voice; this model's voices are"),
        ("ryan*0+serena*0", "more than 0"),
    ],
)
def test_other_voices_are_refused(voice: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        profile(voice, manifest(), PROFILES)
    assert caught.value.param == "voice"


def test_a_language_that_the_model_lacks_becomes_auto() -> None:
    assert profile("eric_sichuan", manifest(), PROFILES).language == "chinese"
    assert profile("eric_sichuan", manifest(languages={"english": 1}), PROFILES).language == "auto"


def test_a_design_model_takes_a_profile_without_its_speaker() -> None:
    design = manifest(model_type="voice_design", speakers={})
    found = profile("serena_meditation", design, PROFILES)
    assert (found.speaker, found.speed) == (None, 0.9)
    assert found.instruction
    assert profile("design", design, PROFILES) == Profile()


def test_speakers_that_a_model_lacks_have_a_stand_in_of_their_gender() -> None:
    other = manifest(speakers=speakers("sohee", "eric"))
    assert profile("serena_clear", other, PROFILES).speaker == "sohee"
    assert profile("ryan_clear", other, PROFILES).speaker == "eric"


def test_an_operators_file_adds_and_replaces(tmp_path: Path) -> None:
    own = {
        "night_radio": {
            "speaker": "Uncle Fu",
            "language": "en-GB",
            "instruction": "Speak like a radio host at night.",
            "sampling": {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.1},
            "speed": 0.9,
            "description": "Late.",
            "tags": ["radio"],
        },
        "ryan_clear": {"speaker": "aiden"},
        "alloy": {"speaker": "ryan", "speed": 1},
        "anyone": {},
        "stranger": {"speaker": "someone", "gender": "female"},
    }
    profiles = load_profiles(write(tmp_path, own))
    assert set(profiles) == {*PROFILES, *own}
    assert profiles["serena_clear"] == PROFILES["serena_clear"]
    found = profile("Night Radio", manifest(), profiles)
    assert (found.speaker, found.language, found.gender, found.speed) == ("uncle_fu", "english", "male", 0.9)
    assert found.sampling == ProfileSampling(temperature=0.7, top_k=40, top_p=0.9, repetition_penalty=1.1)
    assert profile("ryan_clear", manifest(), profiles).speaker == "aiden"
    assert profile("alloy", manifest(), profiles).speaker == "ryan"
    assert profile("anyone", manifest(), profiles).speaker == profile("alloy", manifest(), {}).speaker
    assert profile("stranger", manifest(speakers=speakers("someone")), profiles).speaker == "someone"
    with pytest.raises(InvalidRequestError, match="the voice stranger needs the speaker someone: this model's voices"):
        profile("stranger", manifest(), profiles)


@pytest.mark.parametrize(
    ("profiles", "place"),
    [
        ({"mine": {"speed": 6}}, "profile mine: speed: "),
        ({"mine": {"speed": "1"}}, "profile mine: speed: "),
        ({"mine": {"sampling": {"temperature": -1}}}, "profile mine: sampling.temperature: "),
        ({"mine": {"sampling": {"heat": 1}}}, "profile mine: sampling.heat: "),
        ({"mine": {"speeker": "ryan"}}, "profile mine: speeker: "),
        ({"mine": {"speaker": 3}}, "profile mine: speaker: "),
        ({"mine": {"language": "Klingon"}}, "profile mine: language: language must be one of auto, chinese"),
        ({"mine": {"instruction": ""}}, "profile mine: instruction: "),
        ({"mine": {"instruction": "x" * 501}}, "profile mine: instruction: "),
        ({"mine": {"gender": "robot"}}, "profile mine: gender: "),
        ({"mine": {"tags": "one"}}, "profile mine: tags: "),
        ({"mine": []}, "profile mine: "),
        ({"a*b": {}}, "profile a*b: "),
        ({"Mine": {}}, "profile Mine: "),
        ([], "profiles: "),
    ],
)
def test_a_wrong_file_names_file_profile_and_field(tmp_path: Path, profiles: Any, place: str) -> None:
    path = write(tmp_path, profiles)
    with pytest.raises(ProfileError) as caught:
        load_profiles(path)
    assert str(caught.value).startswith(f"{path}: {place}")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"profiles": {}, "voices": {}}', "\xff"])
def test_a_file_of_something_else_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "voices.json"
    path.write_text(content, "latin-1")
    with pytest.raises(ProfileError, match=r"voices\.json: "):
        load_profiles(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"absent\.json cannot be read: No such file"):
        load_profiles(tmp_path / "absent.json")
