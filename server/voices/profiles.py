"""Reads the catalogue of voices, `voices.json`, and the operator's own profiles.

A profile is a speaker with a way to speak. Where a model ignores instructions, the other fields still hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from server.audio.stretch import MAX_SPEED, MIN_SPEED
from server.errors import first_fault
from server.voices import languages

Gender = Literal["female", "male"]
ProfileId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
"""Without capitals and spaces, since names are compared without them, and without `*` and `+`, which make a formula."""
MAX_INSTRUCTION_CHARS = 500
"""The longest instruction of a profile; instructions take positions from the text, and short ones are followed best."""


class ProfileError(ValueError):
    """A catalogue cannot be used; the message names the file, the profile and the field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Temperature = Annotated[float, Field(ge=0, le=2)]
TopK = Annotated[int, Field(ge=0)]
RepetitionPenalty = Annotated[float, Field(ge=1, le=2)]
Speed = Annotated[float, Field(ge=MIN_SPEED, le=MAX_SPEED)]
"""Ranges of what a profile and a request may both set."""


class ProfileSampling(_Strict):
    """What replaces the model's own sampling; None keeps the model's value."""

    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repetition_penalty: RepetitionPenalty | None = None


class Profile(_Strict):
    """A speaker with a way to speak."""

    speaker: str | None = Field(default=None, min_length=1)
    """A key of `Manifest.speakers`, in a file in any case. None means the default voice's speaker in a file, and no
    speaker where the model has none."""
    language: str = languages.AUTO
    """The language if the request does not say: `auto`, or one of the model's names of languages."""
    instruction: str | None = Field(default=None, min_length=1, max_length=MAX_INSTRUCTION_CHARS)
    sampling: ProfileSampling = ProfileSampling()
    speed: Speed = 1.0
    description: str = Field(default="", max_length=200)
    gender: Gender | None = None
    """If a file does not say, the speaker's own gender, where it is known."""
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
        """OpenAI's and Kokoro's names, each with the speaker that it means."""
        return {**self.openai, **self.kokoro}


@cache
def built_in() -> Catalogue:
    """Read the catalogue that comes with the server."""
    return _read(Path(__file__).with_name("voices.json"), Catalogue)


def load_profiles(path: Path | None) -> Mapping[str, Profile]:
    """Load the built-in profiles and those of the operator's file, by id; the file's override the built-in ones.

    Args:
        path: a file of JSON, `{"profiles": {"ID": {"speaker": ..., ...}}}`; None loads the built-in ones only.

    Raises:
        ProfileError: the file cannot be read or does not fit.
    """
    own = _read(path, _ProfilesFile).profiles if path else {}
    return {name: _with_gender(profile) for name, profile in {**built_in().profiles, **own}.items()}


def normalised(name: str) -> str:
    """Return the spelling in which names are compared: without capitals and spaces."""
    return name.strip().lower().replace(" ", "_")


def _with_gender(profile: Profile) -> Profile:
    facts = built_in().speakers.get(normalised(profile.speaker or ""))
    return profile.model_copy(update={"gender": facts.gender}) if facts and not profile.gender else profile


_File = TypeVar("_File", bound=_ProfilesFile)


def _read(path: Path, kind: type[_File]) -> _File:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        parts, reason = first_fault(error)
        section, *place = parts or [""]
        if section == "profiles" and place:
            section = f"profile {place.pop(0)}"
        where = ": ".join(filter(None, [str(path), section, ".".join(place)]))
        raise ProfileError(f"{where}: {reason}") from None
