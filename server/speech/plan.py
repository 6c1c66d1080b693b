"""Puts a request, its voice's profile and the model's defaults together into a plan. It does no input or output."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import NamedTuple

from server.audio.stretch import MAX_SPEED, MIN_SPEED
from server.engine.job import Sampling
from server.engine.prompt import Layout
from server.engine.reference import Reference
from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.speech.cloning import check_fit
from server.speech.request import SpeechRequest
from server.text import tags
from server.text.alphabet import adapted
from server.text.gradual import Manner
from server.text.lexicon import Lexicon, LexiconError, lexicon_of
from server.text.locators import spoken_links
from server.text.markup import convert
from server.text.prepare import Prepared, Steps, prepare
from server.text.speakable import Letters, is_speakable
from server.voices import catalogue as voices
from server.voices import languages
from server.voices.profiles import Profile, ProfileSampling
from server.voices.saved import SavedVoice

GREEDY_BELOW = 0.01
"""Lower temperatures are taken as 0: dividing by them may overflow, and they draw the likeliest code anyway."""
LEAST_TOP_P = 1e-6
"""Lower values are raised to this: as float32 they may become 0, which leaves no code to draw. The likeliest of some
thousand codes has a higher probability, so that it alone is left either way."""

NO_LEXICON = Lexicon()

_RANDOM_SEEDS = 2**31

_SAMPLING = set(ProfileSampling.model_fields)


@dataclass(frozen=True)
class Delivery:
    """How a part of speech is spoken.

    Attributes:
        speaker: a key of the manifest's speakers, or None where the model has none.
        language: a key of the manifest's languages, or `auto`.
        instruction: how to speak, None where there is none or the model follows none.
        sampling: how codes are drawn.
        speed: of the speech; silences keep their length.
        layout: whether the model is given a text whole or token by token; None leaves it to the model.
        reference: the cloned voice; None where the model speaks with its own.
    """

    speaker: str | None
    language: str
    instruction: str | None
    sampling: Sampling
    speed: float
    layout: Layout | None = None
    reference: Reference | None = None


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
        parts: speech and silences, in order; two silences never stand side by side.
        delivery: how the voice that the request names speaks; the text may name other voices.
        stand_in: whether the model lacks the speaker that this voice means, so that another one speaks.
        instruction_dropped: whether there was an instruction that the model does not follow.
        seed: the seed of the first chunk.
        exact_frames: the exact number of codec frames of each part of speech; None leaves its end to the model.
        most_frames: the most codec frames of all speech together; None is no limit.
        text_changes: names of the steps of preparation that changed the text.
        text_notes: notes in ASCII on what was dropped from the text.
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

    def spoken_by(self, reference: Reference) -> Plan:
        """The same plan, with the voice that the request brings along, once it is known."""
        own = replace(self.delivery, reference=reference)
        parts = (
            replace(part, delivery=own) if isinstance(part, Passage) and part.delivery == self.delivery else part
            for part in self.parts
        )
        return replace(self, parts=tuple(parts), delivery=own)


def no_saved(name: str) -> SavedVoice | None:
    """Where no voices are kept."""
    return None


def make_plan(
    request: SpeechRequest,
    manifest: Manifest,
    profiles: Mapping[str, Profile],
    lexicon: Lexicon = NO_LEXICON,
    *,
    cloned: bool = False,
    saved: Callable[[str], SavedVoice | None] = no_saved,
) -> Plan:
    """Plan the speech of a request: its fields override the voice's profile, which overrides the model's defaults.

    It takes time that grows with the text, so that it has to be called in a thread.

    Args:
        request: the request.
        manifest: the model's manifest.
        profiles: the voice profiles, by id.
        lexicon: the operator's pronunciation dictionary; the request's own entries override it.
        cloned: whether the request's own voice is a cloned one, which `Plan.spoken_by` fills in.
        saved: finds the cloned voice of a name, if one is kept.

    Raises:
        InvalidRequestError: something in it does not fit the model.
    """
    own, stand_in = _own_voice(request, manifest, profiles, cloned=cloned)
    own_delivery = _delivery(request, own, manifest)
    words = _words(request, lexicon)
    try:
        parsed = tags.parse(request.input, partial(convert, text_format=request.text_format))
    except tags.TagError as error:
        raise InvalidRequestError(str(error), param="input") from None
    names = dict.fromkeys(part.voice for part in parsed if isinstance(part, tags.Spoken))
    kept = {name: found for name in names if name is not None and (found := saved(name))}
    for found in kept.values():
        check_fit(found, manifest.id, manifest)
    heard = {
        name: Profile() if name in kept else voices.profile(name, manifest, profiles)
        for name in names
        if name is not None
    }
    deliveries: dict[str | None, Delivery] = {None: own_delivery}
    for name, profile in heard.items():
        reference = kept[name].reference if name in kept else None
        deliveries[name] = replace(_delivery(request, profile, manifest), reference=reference)
    readable = languages.spoken(manifest.languages)
    parts: list[Part] = []
    prepared: list[Prepared] = []
    for part in parsed:
        if isinstance(part, tags.Silence):
            _add_silence(parts, part.seconds)
            continue
        delivery = deliveries[part.voice]
        done = _prepared(part.text, readable, _steps(request, manifest, delivery, words))
        prepared.append(done)
        if is_speakable(done.text):
            parts.append(Passage(done.text, delivery))
    letters = Letters(sum(done.letters.all for done in prepared), sum(done.letters.foreign for done in prepared))
    check_letters(letters, manifest)
    rate = manifest.sizes.codec.sample_rate
    if not any(isinstance(part, Passage) or tags.samples(part.seconds, rate) for part in parts):
        raise InvalidRequestError("input has nothing to speak; send a text, or silences of some length", param="input")
    return Plan(
        parts=tuple(parts),
        delivery=own_delivery,
        stand_in=stand_in and own.speaker is not None,
        instruction_dropped=_drops_an_instruction(request, manifest, own, *heard.values()),
        seed=_seed(request),
        exact_frames=request.exact_frames,
        most_frames=request.max_new_tokens,
        text_changes=tuple(dict.fromkeys(name for done in prepared for name in done.changed)),
        text_notes=tuple(dict.fromkeys(note for done in prepared for note in done.notes)),
    )


class LivePlan(NamedTuple):
    """How a text is to be spoken that arrives over time.

    Attributes:
        plan: has no parts.
        voiced: the delivery and the preparation of what a voice says, None being that of the request; it raises
            `InvalidRequestError` for a name that is none.
    """

    plan: Plan
    voiced: Callable[[str | None], tuple[Delivery, Manner]]

    def spoken_by(self, reference: Reference) -> LivePlan:
        """The same plan, with the voice that the request brings along, once it is known."""

        def voiced(name: str | None) -> tuple[Delivery, Manner]:
            delivery, manner = self.voiced(name)
            return replace(delivery, reference=reference) if name is None else delivery, manner

        return LivePlan(self.plan.spoken_by(reference), voiced)


def make_live_plan(
    request: SpeechRequest,
    manifest: Manifest,
    profiles: Mapping[str, Profile],
    lexicon: Lexicon = NO_LEXICON,
    *,
    cloned: bool = False,
    saved: Callable[[str], SavedVoice | None] = no_saved,
) -> LivePlan:
    """Plan the speech of a text that arrives over time and is given to the model token by token.

    Arguments and errors are those of `make_plan`; the request's `input` counts for nothing.
    """
    check_live(request, manifest)
    own, stand_in = _own_voice(request, manifest, profiles, cloned=cloned)
    words = _words(request, lexicon)
    readable = languages.spoken(manifest.languages)

    def voiced(name: str | None) -> tuple[Delivery, Manner]:
        kept = None if name is None else saved(name)
        if kept is not None:
            check_fit(kept, manifest.id, manifest)
            profile, reference = Profile(), kept.reference
        else:
            profile, reference = own if name is None else voices.profile(name, manifest, profiles), None
        delivery = replace(_delivery(request, profile, manifest), layout="streaming", reference=reference)

        def prepared(text: str, begins_line: bool, ends_line: bool) -> Prepared:
            of_line = {"begins_line": begins_line, "ends_line": ends_line}
            return _prepared(text, readable, _steps(request, manifest, delivery, words, **of_line))

        language = languages.code(delivery.language)
        return delivery, Manner(prepared, words, manifest.alphabet is not None, language)

    plan = Plan(
        parts=(),
        delivery=voiced(None)[0],
        stand_in=stand_in and own.speaker is not None,
        instruction_dropped=_drops_an_instruction(request, manifest, own),
        seed=_seed(request),
        exact_frames=request.exact_frames,
        most_frames=request.max_new_tokens,
    )
    return LivePlan(plan, voiced)


def check_live(request: SpeechRequest, manifest: Manifest) -> None:
    """Check whether a text of this request may be given to the model token by token, as it comes.

    Raises:
        InvalidRequestError: it may not.
    """
    if request.text_format not in ("auto", "plain"):
        raise InvalidRequestError(
            f"text_format {request.text_format} needs a sentence to be there before it is spoken; with "
            "split_granularity token send plain text, or choose sentence",
            param="text_format",
        )
    _check_layout("streaming", manifest, "split_granularity", "choose sentence or clause")


def check_letters(letters: Letters, manifest: Manifest) -> None:
    """See that the model can read the letters of a text.

    Raises:
        InvalidRequestError: it cannot.
    """
    if letters.unreadable:
        readable = ", ".join(languages.spoken(manifest.languages))
        raise InvalidRequestError(
            f"input is written in letters that this model cannot read; it speaks {readable}", param="input"
        )


def _check_layout(layout: Layout | None, manifest: Manifest, param: str, instead: str) -> None:
    if layout == "streaming" and manifest.whole_text:
        raise InvalidRequestError(
            f"the model {manifest.id} has not learnt to be given a text token by token while it speaks; {instead}, or "
            "another model",
            param=param,
        )


def _words(request: SpeechRequest, lexicon: Lexicon) -> Lexicon:
    """The request's own entries before the operator's."""
    try:
        return lexicon_of(request.model_dump(include={"lexicon"})["lexicon"]).before(lexicon)
    except LexiconError as error:
        raise InvalidRequestError(str(error), param="lexicon") from None


def _prepared(text: str, readable: Iterable[str], steps: Steps) -> Prepared:
    try:
        return prepare(text, readable, steps)
    except LexiconError as error:
        raise InvalidRequestError(str(error), param="lexicon") from None


def _seed(request: SpeechRequest) -> int:
    return secrets.randbelow(_RANDOM_SEEDS) if request.seed is None else request.seed


def _drops_an_instruction(request: SpeechRequest, manifest: Manifest, *heard: Profile) -> bool:
    instructed = request.instructions or any(profile.instruction for profile in heard)
    return bool(instructed) and not manifest.follows_instructions


def _steps(
    request: SpeechRequest,
    manifest: Manifest,
    delivery: Delivery,
    lexicon: Lexicon,
    *,
    begins_line: bool = True,
    ends_line: bool = True,
) -> Steps:
    """Choose the steps that depend on the request, on the model, and on whether a text begins and ends a line."""
    known = manifest.languages
    alone = next(iter(known)) if len(known) == 1 else languages.AUTO
    language = languages.code(alone if delivery.language == languages.AUTO else delivery.language)
    alphabet = manifest.alphabet
    return Steps(
        lexicon=lexicon.apply,
        links=None if request.text_format == "plain" else partial(spoken_links, language=language),
        alphabet=None
        if alphabet is None
        else partial(adapted, alphabet=alphabet, language=language, begins_line=begins_line, ends_line=ends_line),
    )


def delivery_of(
    request: SpeechRequest, manifest: Manifest, profiles: Mapping[str, Profile], *, cloned: bool = False
) -> Delivery:
    """How a request's own voice is spoken, whatever its text is; the arguments are those of `make_plan`.

    Raises:
        InvalidRequestError: something in it does not fit the model.
    """
    return _delivery(request, _own_voice(request, manifest, profiles, cloned=cloned).profile, manifest)


def _own_voice(
    request: SpeechRequest, manifest: Manifest, profiles: Mapping[str, Profile], *, cloned: bool
) -> voices.Choice:
    if cloned:
        return voices.Choice(Profile(), stand_in=False)
    return voices.choose(request.voice_name, manifest, profiles)


def _delivery(request: SpeechRequest, profile: Profile, manifest: Manifest) -> Delivery:
    language = languages.resolve(request.language, manifest.languages)
    _check_layout(request.layout, manifest, "layout", "leave layout out")
    instruction = request.instructions or profile.instruction
    return Delivery(
        speaker=profile.speaker,
        language=profile.language if language == languages.AUTO else language,
        instruction=instruction if manifest.follows_instructions else None,
        sampling=_sampling(request, profile.sampling, manifest),
        # The two are multiplied, because clients send a speed of 1 without being asked to.
        speed=min(max(request.speed * profile.speed, MIN_SPEED), MAX_SPEED),
        layout=request.layout,
    )


def _add_silence(parts: list[Part], seconds: Decimal) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, tags.Silence):
        parts[-1] = tags.Silence(last.seconds + seconds)
    else:
        parts.append(tags.Silence(seconds))


def _sampling(request: SpeechRequest, profile: ProfileSampling, manifest: Manifest) -> Sampling:
    """Take each value from the request, else from the profile, else from the model's defaults.

    What request and profile say holds for talker and code predictor alike.
    """
    defaults = manifest.generation
    own = Sampling.of(defaults)
    own = replace(
        own,
        temperature=own.temperature if defaults.do_sample else 0.0,
        predictor_temperature=own.predictor_temperature if defaults.subtalker_dosample else 0.0,
    )
    asked = {**profile.model_dump(exclude_none=True), **request.model_dump(include=_SAMPLING, exclude_none=True)}
    most = manifest.sizes.talker.vocab_size
    if asked.get("top_k", 0) > most:
        raise InvalidRequestError(f"top_k must be at most {most} for this model", param="top_k")
    alike = {f"predictor_{name}": value for name, value in asked.items() if name != "repetition_penalty"}
    wanted = replace(own, **asked, **alike)
    return replace(
        wanted,
        temperature=_temperature(wanted.temperature),
        top_p=max(wanted.top_p, LEAST_TOP_P),
        predictor_temperature=_temperature(wanted.predictor_temperature),
        predictor_top_p=max(wanted.predictor_top_p, LEAST_TOP_P),
    )


def _temperature(value: float) -> float:
    return value if value >= GREEDY_BELOW else 0.0
