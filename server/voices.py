"""Voices: the names a request may use, and the model's speaker that each one means.

A bare speaker name is its own voice. OpenAI's names and Kokoro's ids are aliases (`voices.json`) of the nine speakers
of Qwen3-TTS, women for women's names and men for men's; in a bundle with other speakers each alias still means one of
them, always the same. A VoiceDesign model has no speakers: its voice is `design`, described by the instructions.
A profile adds a way to speak, and a weighted formula of any of these means its heaviest.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from server import formulas
from server.errors import InvalidRequestError
from server.graphs.manifest import Manifest
from server.languages import AUTO
from server.profiles import Profile, built_in, plain

DESIGN = "design"


@dataclass(frozen=True)
class Voice:
    """One entry of `/audio/voices`.

    Attributes:
        id: what a request's `voice` may be.
        name: for people.
        gender: `female` or `male`, where it is known.
        language: the speaker's own.
        alias_of: the voice that it means.
        speaker: the model's speaker, None where the model has none.
        description: one line.
        languages: that it can speak, by the model's names.
        instruction_used: whether the voice brings an instruction, or a request's is followed, by this model.
    """

    id: str
    name: str
    gender: str | None = None
    language: str | None = None
    alias_of: str | None = None
    speaker: str | None = None
    description: str = ""
    languages: tuple[str, ...] = ()
    instruction_used: bool = False


def _stand_in(alias: str, speaker: str, available: list[str]) -> str:
    """The speaker an alias means where its own is missing: of its gender if one is known, chosen by the alias' hash."""
    known = built_in().speakers
    gender = known[speaker].gender
    alike = [name for name in available if name in known and known[name].gender == gender]
    choices = alike or available
    return choices[zlib.crc32(alias.encode()) % len(choices)]


def _meaning(alias: str, manifest: Manifest) -> str:
    """What an alias means in this model: one of its speakers, or `design`."""
    if not manifest.speakers:
        return DESIGN
    speaker = built_in().aliases[alias]
    return speaker if speaker in manifest.speakers else _stand_in(alias, speaker, sorted(manifest.speakers))


def voices_of(manifest: Manifest, profiles: Mapping[str, Profile]) -> list[Voice]:
    """Every voice of a model: its own first, then profiles, OpenAI's names and Kokoro's ids."""
    known = built_in().speakers
    common: dict[str, Any] = {
        "languages": tuple(manifest.languages),
        "instruction_used": manifest.follows_instructions,
    }
    own = [
        Voice(name, facts.name, facts.gender, facts.language, speaker=name, **common)
        if (facts := known.get(name))
        else Voice(name, name.replace("_", " ").title(), speaker=name, **common)
        for name in sorted(manifest.speakers)
    ] or [Voice(id=DESIGN, name="Design (described by the instructions)", **common)]
    by_id = {voice.id: voice for voice in own}
    styled = []
    for name in profiles:
        found = profile(name, manifest, profiles)
        of = by_id.get(found.speaker or DESIGN)
        styled.append(
            Voice(
                name,
                name.replace("_", " ").title(),
                found.gender,
                of.language if of else None,
                speaker=found.speaker,
                description=found.description,
                **common,
            )
        )
    aliases = []
    for alias in built_in().aliases:
        target = by_id[_meaning(alias, manifest)]
        name = f"{alias} ({target.name.partition(' (')[0]})"
        aliases.append(replace(target, id=alias, name=name, alias_of=target.id))
    taken = set(profiles)
    return [voice for voice in own if voice.id not in taken] + styled + [v for v in aliases if v.id not in taken]


def default_voice(manifest: Manifest) -> str:
    """The voice of someone who names none: what OpenAI's first name means here."""
    return _meaning("alloy", manifest)


def resolve(voice: str, manifest: Manifest) -> str | None:
    """Find the speaker of a voice, in any case.

    Returns:
        A key of `manifest.speakers`, or None where the model has no speakers.

    Raises:
        InvalidRequestError: the model has no such voice.
    """
    wanted = plain(voice)
    speaker = {name.lower(): name for name in manifest.speakers}.get(wanted)
    if speaker is not None:
        return speaker
    if wanted in built_in().aliases:
        return _meaning(wanted, manifest) if manifest.speakers else None
    if wanted == DESIGN and not manifest.speakers:
        return None
    own = ", ".join(sorted(manifest.speakers) or [DESIGN])
    raise InvalidRequestError(
        f"this model's voices are {own}, and the OpenAI and Kokoro names listed by /v1/audio/voices", param="voice"
    )


def profile(voice: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> Profile:
    """Find what a voice means in a model: a profile, a speaker, an alias or a formula of them, in any case.

    Args:
        voice: as the request has it.
        manifest: the model's.
        profiles: by id, as `load_profiles` has them; one may take a speaker's or an alias' place.

    Returns:
        A profile that fits the model: its speaker is one of the model's (None where it has none), its language too.

    Raises:
        InvalidRequestError: the model has no such voice, or the formula is none.
    """
    if not formulas.is_formula(voice):
        return _single(voice, manifest, profiles)
    try:
        terms = formulas.parse(voice)
    except formulas.FormulaError as error:
        raise InvalidRequestError(str(error), param="voice") from None
    meant = {term: _single(term.voice, manifest, profiles) for term in terms}
    return meant[formulas.heaviest(terms)]


def _single(voice: str, manifest: Manifest, profiles: Mapping[str, Profile]) -> Profile:
    found = profiles.get(plain(voice))
    if found is None:
        speaker = resolve(voice, manifest)
        facts = built_in().speakers.get(speaker or "")
        return Profile(speaker=speaker, gender=facts.gender if facts else None)
    language = found.language if found.language in manifest.languages else AUTO
    return found.model_copy(update={"speaker": _speaker(voice, found.speaker, manifest), "language": language})


def _speaker(voice: str, speaker: str | None, manifest: Manifest) -> str | None:
    """The model's speaker for a profile; for one of ours that it lacks, one that stands in."""
    if speaker is None or not manifest.speakers:
        return resolve(default_voice(manifest), manifest)
    if speaker in built_in().speakers and speaker not in manifest.speakers:
        return _stand_in(plain(voice), speaker, sorted(manifest.speakers))
    try:
        return resolve(speaker, manifest)
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"the voice {plain(voice)} needs the speaker {speaker}: {error.message}", param="voice"
        ) from None
