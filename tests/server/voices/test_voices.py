"""Voices and their aliases, in bundles with our speakers, with others and with none."""

from __future__ import annotations

from typing import Any

import pytest

from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.voices.catalogue import choose, default_voice, profile, voices_of
from server.voices.profiles import Profile, load_profiles
from tests.server.fakes import SPEAKERS, manifest_of

OPENAI = [
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
]


def manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate(manifest_of("m", **changes))


def speakers(*names: str) -> dict[str, Any]:
    return {name: {"id": number, "dialect": None} for number, name in enumerate(names)}


@pytest.mark.parametrize("voice", [*OPENAI, "af_heart", "af_bella", "am_adam", "bm_george", "zm_yunxi", "AF_Heart"])
def test_aliases_mean_a_speaker(voice: str) -> None:
    assert profile(voice, manifest(), {}).speaker in SPEAKERS


@pytest.mark.parametrize("voice", ["ryan", "Ryan", "RYAN", " ryan "])
def test_bare_speakers_in_any_case(voice: str) -> None:
    assert profile(voice, manifest(), {}).speaker == "ryan"


def test_a_speaker_of_two_words() -> None:
    assert profile("Uncle Fu", manifest(), {}).speaker == "uncle_fu"


def test_aliases_keep_the_gender() -> None:
    listed = {voice.id: voice for voice in voices_of(manifest(), {})}
    kokoro = [voice for voice in listed.values() if voice.id[1:3] in ("f_", "m_")]
    assert len(kokoro) == 54
    assert all(voice.gender == ("female" if voice.id[1] == "f" else "male") for voice in kokoro)
    assert (listed["nova"].gender, listed["onyx"].gender) == ("female", "male")
    assert all(listed[voice.alias_of].gender == voice.gender for voice in listed.values() if voice.alias_of)


def test_the_list_holds_exactly_what_resolves() -> None:
    small = manifest(speakers=speakers("ryan", "stranger"))
    for voice in voices_of(small, {}):
        assert profile(voice.id, small, {}).speaker == (voice.alias_of or voice.id)


def test_other_speakers_stand_in_by_gender_and_always_the_same() -> None:
    assert {
        profile(alias, manifest(speakers=speakers("sohee", "eric")), {}).speaker for alias in ("alloy", "nova")
    } == {"sohee"}
    strangers = manifest(speakers=speakers("b", "a", "c"))
    assert {profile(alias, strangers, {}).speaker for alias in OPENAI} <= {"a", "b", "c"}
    assert (
        profile("alloy", strangers, {}).speaker
        == profile("alloy", manifest(speakers=speakers("c", "b", "a")), {}).speaker
    )


def test_a_design_model_has_one_voice() -> None:
    design = manifest(model_type="voice_design", speakers={})
    assert [voice.id for voice in voices_of(design, {}) if not voice.alias_of] == ["design"]
    assert {profile(voice, design, {}).speaker for voice in ("design", "Design", "alloy", "af_heart")} == {None}
    assert default_voice(design) == "design"


@pytest.mark.parametrize(
    ("voice", "changes"),
    [("nobody", {}), ("design", {}), ("af_heart*0.5+nobody*0.5", {}), ("ryan", {"speakers": {}})],
)
def test_unknown_voices_are_refused_with_the_list(voice: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        profile(voice, manifest(**changes), {})
    assert caught.value.param == "voice"
    assert ("design" if changes else "ryan") in caught.value.message


@pytest.mark.parametrize("voice", ["", " ", "default", "Default", "none", "NONE"])
def test_a_voice_without_a_name_is_the_default_one(voice: str) -> None:
    profiles = load_profiles(None)
    for model in (manifest(), manifest(speakers=speakers("b", "a")), manifest(speakers={}, model_type="voice_design")):
        assert choose(voice, model, profiles) == choose("alloy", model, profiles)
        assert profile(voice, model, profiles).speaker in {*model.speakers, None}
    assert choose("alloy", manifest(), {"alloy": Profile(speaker="ryan")}).profile.speaker == "ryan"
    assert profile("default", manifest(speakers=speakers("a", "default")), {}).speaker == "default"


@pytest.mark.parametrize(
    ("formula", "heard"),
    [
        ("af_bella+ryan", "serena"),
        ("ryan(2)+af_sky(1)", "ryan"),
        ("af_heart(1.0)", "serena"),
        ("0.4*vivian+0.6*ryan", "ryan"),
        ("vivian,ryan", "vivian"),
        ("vivian*2+ryan", "vivian"),
    ],
)
def test_mixes_as_other_servers_have_them(formula: str, heard: str) -> None:
    first = formula.partition("+")[0].partition("(")[0]
    expected = profile(first, manifest(), {}).speaker if heard == "serena" else heard
    assert profile(formula, manifest(), {}).speaker == expected


def test_another_speaker_that_stands_in_is_told() -> None:
    small, profiles = manifest(speakers=speakers("ryan")), load_profiles(None)
    for voice, stand_in in {"ryan": False, "ryan_clear": False, "serena_meditation": True, "alloy": True}.items():
        assert choose(voice, small, profiles).stand_in is stand_in
    assert choose("ryan*0.2+serena_story*0.8", small, profiles).stand_in


def test_an_unknown_voice_is_told_profiles_too() -> None:
    small = manifest(speakers=speakers("ryan"))
    mine = load_profiles(None) | {"grandpa": Profile(speaker="ryan"), "lost": Profile(speaker="somebody")}
    with pytest.raises(InvalidRequestError) as caught:
        profile("nobody", small, mine)
    message = caught.value.message
    assert message.startswith("there is no such voice; this model's voices are ryan; its profiles are ryan_")
    assert "grandpa" in message, "what the model speaks itself comes first"
    assert "lost" not in message
    assert "and 34 more" in message
    assert "/v1/audio/voices" in message


def test_profiles_are_listed_as_they_speak_here() -> None:
    small = manifest(speakers=speakers("ryan", "stranger"))
    profiles = load_profiles(None)
    listed = {voice.id: voice for voice in voices_of(small, profiles)}
    assert set(profiles) <= set(listed)
    for name in profiles:
        voice = listed[name]
        assert voice.speaker == profile(name, small, profiles).speaker
        mine = profiles[name].speaker == "ryan"
        assert bool(voice.description) == mine
        assert voice.alias_of == (None if mine else voice.speaker)
        assert voice.stand_in == (not mine)
        assert voice.gender == ("male" if voice.speaker == "ryan" else None), "of the voice that is heard"
    assert not listed["ryan_clear"].instruction_used
    following = manifest(speakers=speakers("ryan"), follows_instructions=True)
    assert {voice.instruction_used for voice in voices_of(following, profiles)} == {True}


def test_a_profile_may_take_a_speakers_place() -> None:
    small = manifest(speakers=speakers("ryan"))
    mine = {"ryan": Profile(speaker="ryan", speed=0.9, description="Slower.")}
    (listed,) = [voice for voice in voices_of(small, mine) if voice.id == "ryan"]
    assert listed.description == "Slower."
