"""What a request asks of a model: its fields, the voice's profile and the model's defaults, put together. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TypeVar

from server.audio.stretch import MAX_SPEED, MIN_SPEED
from server.engine.job import Sampling
from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.speech.request import SpeechRequest
from server.text import tags
from server.text.alphabet import adapted
from server.text.lexicon import Lexicon, LexiconError, lexicon_of
from server.text.locators import spoken_links
from server.text.markup import convert
from server.text.prepare import Prepared, Steps, prepare
from server.text.speakable import Letters, is_speakable
from server.voices import catalogue as voices
from server.voices import languages
from server.voices.profiles import Profile, ProfileSampling

GREEDY_BELOW = 0.01
"""Temperatures below this are taken as 0: dividing by them may overflow, and they draw the likeliest code anyway."""
LEAST_TOP_P = 1e-6
"""Lower values are taken as this: as float32 they may become 0, which leaves no code to draw. The likeliest of some
thousand codes has a higher probability, so that it alone is left either way."""

NO_LEXICON = Lexicon()

_RANDOM_SEEDS = 2**31

_T = TypeVar("_T")


@dataclass(frozen=True)
class Delivery:
    """How a part of speech is spoken.

    Attributes:
        speaker: a key of the manifest's speakers, or None where the model has none.
        language: a key of the manifest's languages, or `auto`.
        instruction: how to speak, None where there is none or the model follows none.
        sampling: how codes are drawn.
        speed: of the speech; silences keep their length.
    """

    speaker: str | None
    language: str
    instruction: str | None
    sampling: Sampling
    speed: float


@dataclass(frozen=True)
class Passage:
    """A part of speech: a text prepared for the model, and how it is spoken."""

    text: str
    delivery: Delivery


Part = Passage | tags.Silence


@dataclass(frozen=True)
class Plan:
    """What is to be spoken, and how.

    Attributes:
        parts: speech and silences, in order; between two silences lies speech.
        delivery: of the voice that the request names; the text may name others.
        stand_in: whether that voice means another speaker, which the model lacks.
        instruction_dropped: whether there was an instruction that the model does not follow.
        seed: of the first chunk.
        exact_frames: codec frames of each part of speech, exactly; None leaves its end to the model.
        most_frames: codec frames of all speech together at most; None is as many as it takes.
        text_changes: names of the steps of preparation that changed the text.
        text_notes: what was dropped from the text that its author may miss, in ASCII.
    """

    parts: tuple[Part, ...]
    delivery: Delivery
    stand_in: bool
    instruction_dropped: bool
    seed: int
    exact_frames: int | None
    most_frames: int | None
    text_changes: tuple[str, ...] = ()
    text_notes: tuple[str, ...] = ()


def plan(
    request: SpeechRequest, manifest: Manifest, profiles: Mapping[str, Profile], lexicon: Lexicon = NO_LEXICON
) -> Plan:
    """Understand a request: what it says goes before the voice's profile, and that before the model's defaults.

    It takes time that grows with the text: call it in a thread.

    Args:
        request: what somebody wants.
        manifest: the model's.
        profiles: voices with a way to speak, by id.
        lexicon: the operator's; the request's own goes before it.

    Raises:
        InvalidRequestError: something in it does not fit the model.
    """
    own, stand_in = voices.choose(request.voice_name, manifest, profiles)
    own_delivery = _delivery(request, own, manifest)
    try:
        words = lexicon_of(request.model_dump(include={"lexicon"})["lexicon"]).before(lexicon)
    except LexiconError as error:
        raise InvalidRequestError(str(error), param="lexicon") from None
    try:
        parsed = tags.parse(request.input, partial(convert, text_format=request.text_format))
    except tags.TagError as error:
        raise InvalidRequestError(str(error), param="input") from None
    names = dict.fromkeys(part.voice for part in parsed if isinstance(part, tags.Spoken))
    heard = {name: voices.profile(name, manifest, profiles) for name in names if name is not None}
    deliveries = {None: own_delivery} | {name: _delivery(request, found, manifest) for name, found in heard.items()}
    readable = languages.spoken(manifest.languages)
    parts: list[Part] = []
    prepared: list[Prepared] = []
    for part in parsed:
        if isinstance(part, tags.Silence):
            _add_silence(parts, part.seconds)
            continue
        delivery = deliveries[part.voice]
        try:
            done = prepare(part.text, readable, _steps(request, manifest, delivery, words))
        except LexiconError as error:
            raise InvalidRequestError(str(error), param="lexicon") from None
        prepared.append(done)
        if is_speakable(done.text):
            parts.append(Passage(done.text, delivery))
    letters = Letters(sum(done.letters.all for done in prepared), sum(done.letters.foreign for done in prepared))
    if letters.unreadable:
        raise InvalidRequestError(
            f"input is written in letters that this model cannot read; it speaks {', '.join(readable)}", param="input"
        )
    rate = manifest.sizes.codec.sample_rate
    if not any(isinstance(part, Passage) or tags.samples(part.seconds, rate) for part in parts):
        raise InvalidRequestError("input has nothing to speak; send a text, or silences of some length", param="input")
    instructed = request.instructions or any(found.instruction for found in (own, *heard.values()))
    return Plan(
        parts=tuple(parts),
        delivery=own_delivery,
        stand_in=stand_in and own.speaker is not None,
        instruction_dropped=bool(instructed) and not manifest.follows_instructions,
        seed=secrets.randbelow(_RANDOM_SEEDS) if request.seed is None else request.seed,
        exact_frames=request.exact_frames,
        most_frames=request.max_new_tokens,
        text_changes=tuple(dict.fromkeys(name for done in prepared for name in done.changed)),
        text_notes=tuple(dict.fromkeys(note for done in prepared for note in done.notes)),
    )


def _steps(request: SpeechRequest, manifest: Manifest, delivery: Delivery, lexicon: Lexicon) -> Steps:
    """What is done to a text beside what holds for every model."""
    known = manifest.languages
    alone = next(iter(known)) if len(known) == 1 else languages.AUTO
    language = languages.code(alone if delivery.language == languages.AUTO else delivery.language)
    alphabet = manifest.alphabet
    return Steps(
        lexicon=lexicon.apply,
        links=None if request.text_format == "plain" else partial(spoken_links, language=language),
        alphabet=None if alphabet is None else partial(adapted, alphabet=alphabet, language=language),
    )


def delivery_of(request: SpeechRequest, manifest: Manifest, profiles: Mapping[str, Profile]) -> Delivery:
    """How a request's own voice is spoken, whatever its text is.

    Raises:
        InvalidRequestError: something in it does not fit the model.
    """
    return _delivery(request, voices.choose(request.voice_name, manifest, profiles)[0], manifest)


def _delivery(request: SpeechRequest, profile: Profile, manifest: Manifest) -> Delivery:
    language = languages.resolve(request.language, manifest.languages)
    instruction = request.instructions or profile.instruction
    return Delivery(
        speaker=profile.speaker,
        language=profile.language if language == languages.AUTO else language,
        instruction=instruction if manifest.follows_instructions else None,
        sampling=_sampling(request, profile.sampling, manifest),
        # Clients send a speed of 1 without being asked: a profile's own is a part of its voice.
        speed=min(max(request.speed * profile.speed, MIN_SPEED), MAX_SPEED),
    )


def _add_silence(parts: list[Part], seconds: Decimal) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, tags.Silence):
        parts[-1] = tags.Silence(last.seconds + seconds)
    else:
        parts.append(tags.Silence(seconds))


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
