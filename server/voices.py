"""Voices: the names a request may use, and the model's speaker that each one means.

A bare speaker name is its own voice. OpenAI's names and Kokoro's ids are aliases (`voices.json`) of the nine speakers
of Qwen3-TTS, women for women's names and men for men's; in a bundle with other speakers each alias still means one of
them, always the same. A VoiceDesign model has no speakers: its voice is `design`, described by the instructions.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from server.errors import InvalidRequestError
from server.graphs.manifest import Manifest

DESIGN = "design"


@dataclass(frozen=True)
class Voice:
    """One entry of `/audio/voices`."""

    id: str
    name: str
    gender: str | None = None
    language: str | None = None
    alias_of: str | None = None


@dataclass(frozen=True)
class _Catalogue:
    speakers: dict[str, dict[str, str]]
    openai: dict[str, str]
    kokoro: dict[str, str]

    @property
    def aliases(self) -> dict[str, str]:
        return {**self.openai, **self.kokoro}


@cache
def _catalogue() -> _Catalogue:
    return _Catalogue(**json.loads(Path(__file__).with_name("voices.json").read_text("utf-8")))


def _stand_in(alias: str, speaker: str, available: list[str]) -> str:
    """The speaker an alias means where its own is missing: of its gender if one is known, chosen by the alias' hash."""
    known = _catalogue().speakers
    gender = known[speaker]["gender"]
    alike = [name for name in available if known.get(name, {}).get("gender") == gender]
    choices = alike or available
    return choices[zlib.crc32(alias.encode()) % len(choices)]


def _meaning(alias: str, manifest: Manifest) -> str:
    """What an alias means in this model: one of its speakers, or `design`."""
    if not manifest.speakers:
        return DESIGN
    speaker = _catalogue().aliases[alias]
    return speaker if speaker in manifest.speakers else _stand_in(alias, speaker, sorted(manifest.speakers))


def voices_of(manifest: Manifest) -> list[Voice]:
    """Every voice of a model: its own first, then OpenAI's names, then Kokoro's ids."""
    known = _catalogue().speakers
    own = [
        Voice(id=name, **known.get(name, {"name": name.replace("_", " ").title()}))
        for name in sorted(manifest.speakers)
    ] or [Voice(id=DESIGN, name="Design (described by the instructions)")]
    by_id = {voice.id: voice for voice in own}
    aliases = []
    for alias in _catalogue().aliases:
        target = by_id[_meaning(alias, manifest)]
        aliases.append(
            Voice(alias, f"{alias} ({target.name.partition(' (')[0]})", target.gender, target.language, target.id)
        )
    return own + aliases


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
    wanted = voice.strip().lower().replace(" ", "_")
    speaker = {name.lower(): name for name in manifest.speakers}.get(wanted)
    if speaker is not None:
        return speaker
    if wanted in _catalogue().aliases:
        return _meaning(wanted, manifest) if manifest.speakers else None
    if wanted == DESIGN and not manifest.speakers:
        return None
    own = ", ".join(sorted(manifest.speakers) or [DESIGN])
    raise InvalidRequestError(
        f"this model's voices are {own}, and the OpenAI and Kokoro names listed by /v1/audio/voices", param="voice"
    )
