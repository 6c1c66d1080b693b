"""The catalogue of voices, `voices.json`, and the operator's own profiles beside it.

A profile is a speaker with a way to speak. Where a model ignores instructions, the other fields still hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from server.audio.stretch import MAX_SPEED, MIN_SPEED
from server.voices import languages

Gender = Literal["female", "male"]
ProfileId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
"""No capitals and spaces, as names are compared without; no `*` and `+`, which make a formula."""
MAX_INSTRUCTION_CHARS = 500
"""Instructions take positions from the text; the model follows short ones best."""


class ProfileError(ValueError):
    """A catalogue that cannot be used; the message names the file, the profile and the field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ProfileSampling(_Strict):
    """What replaces the model's own sampling, in the ranges that a request has; None replaces nothing."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_k: int | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=1, le=2)


class Profile(_Strict):
    """A voice as a request may ask for it."""

    speaker: str | None = Field(default=None, min_length=1)
    """Key of `Manifest.speakers`, in a file in any case; None where the model has none, or in a file: the default
    voice's speaker."""
    language: str = languages.AUTO
    """What is spoken where the request does not say: `auto`, or a language by a name of the model's."""
    instruction: str | None = Field(default=None, min_length=1, max_length=MAX_INSTRUCTION_CHARS)
    sampling: ProfileSampling = ProfileSampling()
    speed: float = Field(default=1.0, ge=MIN_SPEED, le=MAX_SPEED)
    description: str = Field(default="", max_length=200)
    gender: Gender | None = None
    """In a file: the speaker's own where it is known and this is absent."""
    tags: tuple[str, ...] = Field(default=(), strict=False)

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str) -> str:
        return languages.resolve(value, languages.KNOWN)


class SpeakerFacts(_Strict):
    """One of Qwen3-TTS's own speakers."""

    name: str
    gender: Gender
    language: str


class _ProfilesFile(_Strict):
    profiles: dict[ProfileId, Profile]


class Catalogue(_ProfilesFile):
    """All of `voices.json`."""

    speakers: dict[str, SpeakerFacts]
    openai: dict[str, str]
    kokoro: dict[str, str]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """OpenAI's and Kokoro's names, and the speaker each means."""
        return {**self.openai, **self.kokoro}


@cache
def built_in() -> Catalogue:
    """The catalogue that comes with the server."""
    return _read(Path(__file__).with_name("voices.json"), Catalogue)


def load_profiles(path: Path | None) -> Mapping[str, Profile]:
    """The built-in profiles and those of the operator's file, by id; the file's win.

    Args:
        path: JSON, `{"profiles": {"ID": {"speaker": ..., ...}}}`; None for the built-in ones only.

    Raises:
        ProfileError: the file cannot be read or does not fit.
    """
    own = _read(path, _ProfilesFile).profiles if path else {}
    return {name: _with_gender(profile) for name, profile in {**built_in().profiles, **own}.items()}


def plain(name: str) -> str:
    """The spelling in which names are compared: no capitals, no spaces."""
    return name.strip().lower().replace(" ", "_")


def _with_gender(profile: Profile) -> Profile:
    facts = built_in().speakers.get(plain(profile.speaker or ""))
    return profile.model_copy(update={"gender": facts.gender}) if facts and not profile.gender else profile


_File = TypeVar("_File", bound=_ProfilesFile)


def _read(path: Path, kind: type[_File]) -> _File:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        section, *place = (str(part) for part in first["loc"] if part != "[key]") if first["loc"] else ("",)
        if section == "profiles" and place:
            section = f"profile {place.pop(0)}"
        where = ": ".join(filter(None, [str(path), section, ".".join(place)]))
        raise ProfileError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
