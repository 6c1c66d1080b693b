"""The voices of a model: the names that a request may use, and the speaker that each of them means.

A speaker's name is a voice. OpenAI's names and Kokoro's ids are aliases (`voices.json`) of the nine speakers of
Qwen3-TTS, women for women's names and men for men's. In a bundle with other speakers each alias means one of them,
always the same, which is called a stand-in. A VoiceDesign model has no speakers: its voice is `design`, described by
the instructions. A Base model has none of these, and clones voices. A profile adds a way to speak. A weighted formula
of voices means the heaviest of them.

A name is looked for as it is listed, then in its normalised spelling, then as a formula. `default`, `none` and an
empty name mean what OpenAI's first name means.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.voices import formulas, languages
from server.voices.profiles import Profile, SpeakerFacts, built_in, normalised

DESIGN = "design"
_FIRST = "alloy"
_DEFAULTS = frozenset({"", "default", "none"})
_SHOWN = 12
"""How many profiles an error names; the list of voices has them all."""


class Voice(BaseModel):
    """One entry of `/audio/voices`."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: str
    """The name by which a request's `voice` asks for it."""
    name: str
    """The name that people read."""
    gender: str | None = None
    """`female` or `male`, of the voice that is heard; null where it is not known."""
    language: str | None = None
    """The speaker's own language; null where it is not known."""
    alias_of: str | None = None
    """Id of the voice that is heard, if this is another name of it; null if this is a voice of its own."""
    stand_in: bool = False
    """Whether the model lacks the speaker that this name means, so that another one, `alias_of`, speaks instead."""
    speaker: str | None = None
    """The model's speaker that is heard; null if the model has none."""
    description: str = ""
    """A line on how it sounds."""
    tags: tuple[str, ...] = ()
    """What it is for or how it sounds, in single words, such as `story` or `calm`."""
    languages: tuple[str, ...] = ()
    """The languages that it can speak, by the model's names."""
    instruction_used: bool = False
    """Whether the model follows the instructions of a request or of this voice."""


class _Heard(NamedTuple):
    """The speaker that is heard for a name (None if the model has none), and whether another one was meant."""

    speaker: str | None
    stand_in: bool = False


def voices_of(manifest: Manifest, profiles: Mapping[str, Profile]) -> list[Voice]:
    """List every voice of a model: its own, profiles, OpenAI's names and Kokoro's ids, and stand-ins last.

    Profiles that need a speaker which the model lacks are left out; `left_out` returns them. A model that clones voices
    has none of its own.
    """
    if manifest.clones:
        return []
    own = {voice.id: voice for voice in _own_voices(manifest)}
    listed = [voice for voice in own.values() if voice.id not in profiles]
    missing = left_out(manifest, profiles)
    for name in profiles:
        if name not in missing:
            heard, found = _profile_heard(name, profiles[name], manifest), profile(name, manifest, profiles)
            of, title = own[heard.speaker or DESIGN], name.replace("_", " ").title()
            changes = {
                "id": name,
                "name": title,
                "gender": found.gender,
                "description": found.description,
                "tags": found.tags,
            }
            listed.append(_other_name(of, name, title, heard) if heard.stand_in else of.model_copy(update=changes))
    for alias in built_in().aliases:
        if alias not in profiles and alias not in manifest.speakers:
            heard = _heard(alias, manifest)
            listed.append(_other_name(own[heard.speaker or DESIGN], alias, alias, heard))
    return sorted(listed, key=lambda voice: voice.stand_in)


def own_voices_of(manifest: Manifest, profiles: Mapping[str, Profile]) -> list[Voice]:
    """The voices of a model that are no other names and no stand-ins: speakers and profiles."""
    return [voice for voice in voices_of(manifest, profiles) if voice.alias_of is None and not voice.stand_in]


def left_out(manifest: Manifest, profiles: Mapping[str, Profile]) -> dict[str, str]:
    """Find the profiles that a model cannot speak, each with the speaker that it needs and the model lacks."""
    missing = {}
    for name, found in profiles.items():
        try:
            _profile_heard(name, found, manifest)
        except InvalidRequestError:
            missing[name] = str(found.speaker)
    return missing


def default_voice(manifest: Manifest) -> str:
    """Return the voice of a request that names none, which is what OpenAI's first name means in this model."""
    return _heard(_FIRST, manifest).speaker or DESIGN


def is_own(name: str, manifests: Iterable[Manifest], profiles: Mapping[str, Profile]) -> bool:
    """Whether a name, in any spelling, means a voice that some of these models has, or may have, without cloning."""
    speakers = (speaker for manifest in manifests for speaker in manifest.speakers)
    known = {*_DEFAULTS, DESIGN, *built_in().speakers, *built_in().aliases, *profiles, *speakers}
    return normalised(name) in map(normalised, known)


class Choice(NamedTuple):
    """What a request's voice means in a model."""

    profile: Profile
    """The profile with a speaker of the model (None if it has none), a language of the model, and the gender of the
    voice that is heard."""
    stand_in: bool
    """Whether the model lacks the speaker that the voice means, so that another one speaks instead."""


def choose(voice: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> Choice:
    """Find what a voice means in a model: a profile, a speaker, an alias or a formula of them.

    Args:
        voice: the voice's name as the request has it.
        manifest: the model's manifest.
        profiles: the profiles by id, as `load_profiles` returns them; one may replace a speaker or an alias.

    Raises:
        InvalidRequestError: the model has no such voice, or the formula is malformed.
    """
    if manifest.clones:
        raise InvalidRequestError(
            "this model speaks with cloned voices only, and there is none of this name: send a recording as ref_audio "
            "and what is said in it as ref_text, or upload a voice with POST /v1/audio/voices",
            param="voice",
        )
    name = _find(voice, manifest, profiles)
    if name is not None:
        return _choice(name, manifest, profiles)
    if normalised(voice) in _DEFAULTS:
        return _choice(_FIRST, manifest, profiles)
    if not formulas.is_formula(voice):
        raise InvalidRequestError(f"there is no such voice; {_known(manifest, profiles)}", param="voice")
    try:
        terms = formulas.parse(voice, manifest.speakers)
    except formulas.FormulaError as error:
        raise InvalidRequestError(str(error), param="voice") from None
    meant = {term.voice: _term(number, term.voice, manifest, profiles) for number, term in enumerate(terms, start=1)}
    return meant[formulas.heaviest(terms).voice]


def profile(voice: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> Profile:
    """Return the profile that `choose` finds."""
    return choose(voice, manifest, profiles).profile


def _term(number: int, voice: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> Choice:
    """Find what a term of a formula means; Kokoro Web allows blanks anywhere in it."""
    name = _find(voice, manifest, profiles) or _find("".join(voice.split()), manifest, profiles)
    if name is None:
        known = _known(manifest, profiles)
        raise InvalidRequestError(f"term {number} of the voice formula names no voice; {known}", param="voice")
    return _choice(name, manifest, profiles)


def _find(voice: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> str | None:
    """Find the listed id that a name means: the name itself, else the id of this normalised spelling, else None."""
    known = {*profiles, *built_in().aliases, *(manifest.speakers or (DESIGN,))}
    if voice in known:
        return voice
    wanted = normalised(voice)
    return wanted if wanted in known else _speaker_like(wanted, manifest)


def _speaker_like(wanted: str, manifest: Manifest) -> str | None:
    """Find the speaker of this normalised spelling; ids of profiles and aliases are always normalised."""
    return next((name for name in sorted(manifest.speakers) if normalised(name) == wanted), None)


def _choice(name: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> Choice:
    """Return what an id that `_find` has found means."""
    found = profiles.get(name, Profile())
    speaker, stand_in = _profile_heard(name, found, manifest) if name in profiles else _heard(name, manifest)
    facts = _facts(speaker)
    gender = facts.gender if facts else None
    changes = {
        "speaker": speaker,
        "gender": gender if stand_in else found.gender or gender,
        "language": languages.find(found.language, manifest.languages) or languages.AUTO,
    }
    return Choice(found.model_copy(update=changes), stand_in)


def _heard(name: str, manifest: Manifest) -> _Heard:
    """Find who is heard for a speaker's name, an alias or `design`."""
    if name in manifest.speakers:
        return _Heard(name)
    if not manifest.speakers:
        return _Heard(None, stand_in=name != DESIGN)
    meant = built_in().aliases[name]
    speaker = _speaker_like(meant, manifest)
    return _Heard(speaker) if speaker else _Heard(_stand_in(name, meant, manifest), stand_in=True)


def _profile_heard(name: str, found: Profile, manifest: Manifest) -> _Heard:
    """Find who is heard for a profile; another speaker stands in for one of Qwen3-TTS's own that the model lacks."""
    if found.speaker is None:
        return _Heard(_heard(_FIRST, manifest).speaker)
    if not manifest.speakers:
        return _Heard(None, stand_in=True)
    speaker, meant = _find(found.speaker, manifest, {}), normalised(found.speaker)
    if speaker is not None:
        return _heard(speaker, manifest)
    if meant in built_in().speakers:
        return _Heard(_stand_in(name, meant, manifest), stand_in=True)
    raise InvalidRequestError(
        f"the voice {name} needs the speaker {found.speaker}: {_known(manifest, {})}", param="voice"
    )


def _stand_in(name: str, meant: str, manifest: Manifest) -> str:
    """Choose the speaker that stands in for a missing one, by the name's hash, and of the same gender if possible."""
    gender = built_in().speakers[meant].gender
    available = sorted(manifest.speakers)
    alike = [speaker for speaker in available if (facts := _facts(speaker)) and facts.gender == gender]
    choices = alike or available
    return choices[zlib.crc32(name.encode()) % len(choices)]


def _facts(speaker: str | None) -> SpeakerFacts | None:
    """Return what is known of a speaker, if it is one of Qwen3-TTS's own."""
    return built_in().speakers.get(normalised(speaker or ""))


def _own_voices(manifest: Manifest) -> list[Voice]:
    languages, instruction_used = tuple(manifest.languages), manifest.follows_instructions
    if not manifest.speakers:
        name = "Design (described by the instructions)"
        return [Voice(id=DESIGN, name=name, languages=languages, instruction_used=instruction_used)]
    voices = []
    for speaker in sorted(manifest.speakers):
        facts = _facts(speaker)
        voice = Voice(
            id=speaker,
            name=facts.name if facts else speaker.replace("_", " ").title(),
            gender=facts.gender if facts else None,
            language=facts.language if facts else None,
            speaker=speaker,
            languages=languages,
            instruction_used=instruction_used,
        )
        voices.append(voice)
    return voices


def _other_name(voice: Voice, name: str, title: str, heard: _Heard) -> Voice:
    """Copy a voice under another name; both names are shown, because some clients show nothing else."""
    shown = f"{title} ({voice.name.partition(' (')[0]})"
    return voice.model_copy(update={"id": name, "name": shown, "alias_of": voice.id, "stand_in": heard.stand_in})


def _known(manifest: Manifest, profiles: Mapping[str, Profile]) -> str:
    """Say which voices there are, for an error."""
    own = ", ".join(sorted(manifest.speakers) or [DESIGN])
    missing = left_out(manifest, profiles)
    mine = [name for name in profiles if name not in missing]
    mine.sort(key=lambda name: _profile_heard(name, profiles[name], manifest).stand_in)
    more = f" and {len(mine) - _SHOWN} more" if len(mine) > _SHOWN else ""
    ways = f"; its profiles are {', '.join(mine[:_SHOWN])}{more}" if mine else ""
    return (
        f"this model's voices are {own}{ways}; it also knows OpenAI's and Kokoro's names; "
        "GET /v1/audio/voices lists them all"
    )
