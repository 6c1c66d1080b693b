"""What a request asks of a model: its fields, the voice's profile and the model's defaults, put together. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from server import languages, voices
from server.audio.stretch import MAX_SPEED, MIN_SPEED
from server.engine.job import Sampling
from server.errors import InvalidRequestError
from server.graphs.manifest import Manifest
from server.profiles import Profile, ProfileSampling
from server.speech_request import SpeechRequest
from server.text import tags

GREEDY_BELOW = 0.01
"""Temperatures below this are taken as 0: dividing by them may overflow, and they draw the likeliest code anyway."""
LEAST_TOP_P = 1e-6
"""Lower values are taken as this: as float32 they may become 0, which leaves no code to draw. The likeliest of some
thousand codes has a higher probability, so that it alone is left either way."""

_RANDOM_SEEDS = 2**31

_T = TypeVar("_T")


@dataclass(frozen=True)
class Plan:
    """What is to be spoken, and how.

    Attributes:
        parts: speech and silences, in order.
        speaker: a key of the manifest's speakers, or None where the model has none.
        stand_in: whether the voice means another speaker, which the model lacks.
        language: a key of the manifest's languages, or `auto`.
        instruction: how to speak, None where there is none or the model follows none.
        instruction_dropped: whether there was one that the model does not follow.
        sampling: how codes are drawn.
        speed: of the speech; silences keep their length.
        seed: of the first chunk.
        exact_frames: codec frames of each part of speech, exactly; None leaves its end to the model.
        most_frames: codec frames of all speech together at most; None is as many as it takes.
    """

    parts: tuple[tags.Part, ...]
    speaker: str | None
    stand_in: bool
    language: str
    instruction: str | None
    instruction_dropped: bool
    sampling: Sampling
    speed: float
    seed: int
    exact_frames: int | None
    most_frames: int | None


def plan(request: SpeechRequest, manifest: Manifest, profiles: Mapping[str, Profile]) -> Plan:
    """Understand a request: what it says goes before the voice's profile, and that before the model's defaults.

    Raises:
        InvalidRequestError: something in it does not fit the model.
    """
    profile, stand_in = voices.choose(request.voice_name, manifest, profiles)
    language = languages.resolve(request.language, manifest.languages)
    instruction = request.instructions or profile.instruction
    follows = manifest.follows_instructions
    try:
        parts = tuple(tags.parse(request.input))
    except tags.TagError as error:
        raise InvalidRequestError(str(error), param="input") from None
    rate = manifest.sizes.codec.sample_rate
    if not any(isinstance(part, tags.Spoken) or tags.samples(part.seconds, rate) for part in parts):
        raise InvalidRequestError("input has nothing to speak; send a text, or silences of some length", param="input")
    return Plan(
        parts=parts,
        speaker=profile.speaker,
        stand_in=stand_in and profile.speaker is not None,
        language=profile.language if language == languages.AUTO else language,
        instruction=instruction if follows else None,
        instruction_dropped=bool(instruction) and not follows,
        sampling=_sampling(request, profile.sampling, manifest),
        # Clients send a speed of 1 without being asked: a profile's own is a part of its voice.
        speed=min(max(request.speed * profile.speed, MIN_SPEED), MAX_SPEED),
        seed=secrets.randbelow(_RANDOM_SEEDS) if request.seed is None else request.seed,
        exact_frames=request.exact_frames,
        most_frames=request.max_new_tokens,
    )


def _sampling(request: SpeechRequest, profile: ProfileSampling, manifest: Manifest) -> Sampling:
    """The request, or the profile, or the model's defaults; the first two hold for talker and code predictor alike."""
    defaults = manifest.generation
    most = manifest.sizes.talker.vocab_size
    top_k = _pick(request.top_k, profile.top_k)
    if top_k is not None and top_k > most:
        raise InvalidRequestError(f"top_k must be at most {most} for this model", param="top_k")

    temperature = _pick(request.temperature, profile.temperature)
    top_p = _pick(request.top_p, profile.top_p)
    return Sampling(
        temperature=_temperature(_pick(temperature, defaults.temperature if defaults.do_sample else 0.0)),
        top_k=_pick(top_k, defaults.top_k),
        top_p=max(_pick(top_p, defaults.top_p), LEAST_TOP_P),
        repetition_penalty=_pick(
            _pick(request.repetition_penalty, profile.repetition_penalty), defaults.repetition_penalty
        ),
        predictor_temperature=_temperature(
            _pick(temperature, defaults.subtalker_temperature if defaults.subtalker_dosample else 0.0)
        ),
        predictor_top_k=_pick(top_k, defaults.subtalker_top_k),
        predictor_top_p=max(_pick(top_p, defaults.subtalker_top_p), LEAST_TOP_P),
    )


def _temperature(value: float) -> float:
    return value if value >= GREEDY_BELOW else 0.0


def _pick(asked: _T | None, default: _T) -> _T:
    return default if asked is None else asked
