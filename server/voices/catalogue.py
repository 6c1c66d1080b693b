"""Voices: the names a request may use, and the model's speaker that each one means.

A bare speaker name is its own voice. OpenAI's names and Kokoro's ids are aliases (`voices.json`) of the nine speakers
of Qwen3-TTS, women for women's names and men for men's; in a bundle with other speakers each alias still means one of
them, always the same: a stand-in. A VoiceDesign model has no speakers: its voice is `design`, described by the
instructions. A profile adds a way to speak, and a weighted formula of any of these means its heaviest.

A name is looked for as it is listed, then in its plain form (`profiles.plain`), then as a formula. `default`, `none`
and no name at all mean what OpenAI's first name means.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.voices import formulas, languages
from server.voices.profiles import Profile, SpeakerFacts, built_in, plain

DESIGN = "design"
_FIRST = "alloy"
_DEFAULTS = frozenset({"", "default", "none"})
_SHOWN = 12
"""Profiles that an error names; the list of voices has them all."""


class Voice(BaseModel):
    """One entry of `/audio/voices`."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: str
    """What a request's `voice` may be."""
    name: str
    """For people."""
    gender: str | None = None
    """`female` or `male` where it is known, of the voice that is heard."""
    language: str | None = None
    """The speaker's own."""
    alias_of: str | None = None
    """Id of the voice that is heard, where this is another name for it; null where this is a voice of its own."""
    stand_in: bool = False
    """Whether the model lacks the speaker that this name means, so that another one, `alias_of`, speaks instead."""
    speaker: str | None = None
    """The model's speaker that is heard; null where the model has none."""
    description: str = ""
    """One line."""
    languages: tuple[str, ...] = ()
    """That it can speak, by the model's names."""
    instruction_used: bool = False
    """Whether the voice brings an instruction, or a request's is followed, by this model."""


class _Heard(NamedTuple):
    """The model's speaker that a name ends at (None where the model has none), and whether another one was meant."""

    speaker: str | None
    stand_in: bool = False


def voices_of(manifest: Manifest, profiles: Mapping[str, Profile]) -> list[Voice]:
    """Every voice of a model: its own, profiles, OpenAI's names and Kokoro's ids; those that are stand-ins last.

    Profiles that need a speaker which the model lacks are left out; `left_out` has them.
    """
    own = {voice.id: voice for voice in _own_voices(manifest)}
    listed = [voice for voice in own.values() if voice.id not in profiles]
    missing = left_out(manifest, profiles)
    for name in profiles:
        if name not in missing:
            heard, found = _profile_heard(name, profiles[name], manifest), profile(name, manifest, profiles)
            of, title = own[heard.speaker or DESIGN], name.replace("_", " ").title()
            changes = {"id": name, "name": title, "gender": found.gender, "description": found.description}
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
    """The profiles that a model cannot speak, each with the speaker that it needs and the model lacks."""
    missing = {}
    for name, found in profiles.items():
        try:
            _profile_heard(name, found, manifest)
        except InvalidRequestError:
            missing[name] = str(found.speaker)
    return missing


def default_voice(manifest: Manifest) -> str:
    """The voice of someone who names none: what OpenAI's first name means here."""
    return _heard(_FIRST, manifest).speaker or DESIGN


def resolve(voice: str, manifest: Manifest) -> str | None:
    """Find the speaker of a speaker's name or an alias.

    Returns:
        A key of `manifest.speakers`, or None where the model has no speakers.

    Raises:
        InvalidRequestError: the model has no such voice.
    """
    name = _find(voice, manifest, {})
    if name is None:
        raise _unknown(manifest, {})
    return _heard(name, manifest).speaker


class Choice(NamedTuple):
    """What a request's voice means in a model."""

    profile: Profile
    """Fits the model: its speaker is one of the model's (None where it has none), its language too, and its gender is
    that of the voice that is heard."""
    stand_in: bool
    """Whether the model lacks the speaker that the voice means, so that another one speaks instead."""


def choose(voice: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> Choice:
    """Find what a voice means in a model: a profile, a speaker, an alias or a formula of them.

    Args:
        voice: as the request has it.
        manifest: the model's.
        profiles: by id, as `load_profiles` has them; one may take a speaker's or an alias' place.

    Raises:
        InvalidRequestError: the model has no such voice, or the formula is none.
    """
    name = _find(voice, manifest, profiles)
    if name is not None:
        return _choice(name, manifest, profiles)
    if plain(voice) in _DEFAULTS:
        return _choice(_FIRST, manifest, profiles)
    if not formulas.is_formula(voice):
        raise _unknown(manifest, profiles)
    try:
        terms = formulas.parse(voice, manifest.speakers)
    except formulas.FormulaError as error:
        raise InvalidRequestError(str(error), param="voice") from None
    meant = {term.voice: _term(term.voice, manifest, profiles) for term in terms}
    return meant[formulas.heaviest(terms).voice]


def profile(voice: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> Profile:
    """The profile of what `choose` finds."""
    return choose(voice, manifest, profiles).profile


def _term(voice: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> Choice:
    """What a term of a formula names; Kokoro Web lets blanks stand anywhere in it."""
    name = _find(voice, manifest, profiles) or _find("".join(voice.split()), manifest, profiles)
    if name is None:
        raise _unknown(manifest, profiles)
    return _choice(name, manifest, profiles)


def _find(voice: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> str | None:
    """The id, as it is listed, that a voice names: its own, else the one that is plainly the same; None if none is."""
    known = {*profiles, *built_in().aliases, *(manifest.speakers or (DESIGN,))}
    if voice in known:
        return voice
    wanted = plain(voice)
    return wanted if wanted in known else _speaker_like(wanted, manifest)


def _speaker_like(wanted: str, manifest: Manifest) -> str | None:
    """The speaker whose plain form this is; ids of profiles and aliases are always plain."""
    return next((name for name in sorted(manifest.speakers) if plain(name) == wanted), None)


def _choice(name: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> Choice:
    """What an id that `_find` gave means."""
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
    """Who is heard for a speaker's name, an alias or `design`."""
    if name in manifest.speakers:
        return _Heard(name)
    if not manifest.speakers:
        return _Heard(None, stand_in=name != DESIGN)
    meant = built_in().aliases[name]
    speaker = _speaker_like(meant, manifest)
    return _Heard(speaker) if speaker else _Heard(_stand_in(name, meant, manifest), stand_in=True)


def _profile_heard(name: str, found: Profile, manifest: Manifest) -> _Heard:
    """Who is heard for a profile; for one of Qwen3-TTS's speakers that the model lacks, one that stands in."""
    if found.speaker is None:
        return _Heard(_heard(_FIRST, manifest).speaker)
    if not manifest.speakers:
        return _Heard(None, stand_in=True)
    speaker, meant = _find(found.speaker, manifest, {}), plain(found.speaker)
    if speaker is not None:
        return _heard(speaker, manifest)
    if meant in built_in().speakers:
        return _Heard(_stand_in(name, meant, manifest), stand_in=True)
    raise InvalidRequestError(
        f"the voice {name} needs the speaker {found.speaker}: {_unknown(manifest, {}).message}", param="voice"
    )


def _stand_in(name: str, meant: str, manifest: Manifest) -> str:
    """The speaker a name means where its own is missing: of its gender if one is known, chosen by the name's hash."""
    gender = built_in().speakers[meant].gender
    available = sorted(manifest.speakers)
    alike = [speaker for speaker in available if (facts := _facts(speaker)) and facts.gender == gender]
    choices = alike or available
    return choices[zlib.crc32(name.encode()) % len(choices)]


def _facts(speaker: str | None) -> SpeakerFacts | None:
    """What is known of a speaker, if it is one of Qwen3-TTS's own."""
    return built_in().speakers.get(plain(speaker or ""))


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
    """A voice under another name; its own stays in sight, as some clients show names and nothing else."""
    shown = f"{title} ({voice.name.partition(' (')[0]})"
    return voice.model_copy(update={"id": name, "name": shown, "alias_of": voice.id, "stand_in": heard.stand_in})


def _unknown(manifest: Manifest, profiles: Mapping[str, Profile]) -> InvalidRequestError:
    own = ", ".join(sorted(manifest.speakers) or [DESIGN])
    missing = left_out(manifest, profiles)
    mine = [name for name in profiles if name not in missing]
    mine.sort(key=lambda name: _profile_heard(name, profiles[name], manifest).stand_in)
    more = f" and {len(mine) - _SHOWN} more" if len(mine) > _SHOWN else ""
    ways = f"; its profiles are {', '.join(mine[:_SHOWN])}{more}" if mine else ""
    return InvalidRequestError(
        f"this model's voices are {own}{ways}; it also knows OpenAI's and Kokoro's names; "
        "GET /v1/audio/voices lists them all",
        param="voice",
    )
