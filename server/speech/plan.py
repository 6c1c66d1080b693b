"""Puts a request, its voice's profile and the model's defaults together into a plan. It does no input or output."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial

from server.engine.reference import Reference
from server.errors import InvalidRequestError
from server.manifest import Manifest
from server.speech.captions import Script
from server.speech.delivery import Deliveries, Delivery, Saved, no_saved
from server.speech.request import SpeechRequest
from server.speech.wording import Wording, check_letters
from server.text import tags
from server.text.lexicon import NO_LEXICON, Lexicon
from server.text.markup import convert
from server.text.prepare import Prepared
from server.text.speakable import Letters, is_speakable
from server.voices.profiles import Profile

_RANDOM_SEEDS = 2**31


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
        sentences: whether each sentence is spoken by itself.
        trim_start: whether the silence that the voice makes before its first word is left out.
        script: where what is said stands in the text; None where nobody asked for times.
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
    sentences: bool = False
    trim_start: bool = False
    script: Script | None = None

    def spoken_by(self, reference: Reference) -> Plan:
        """The same plan, with the voice that the request brings along, once it is known."""
        own = replace(self.delivery, reference=reference)
        parts = (
            replace(part, delivery=own) if isinstance(part, Passage) and part.delivery == self.delivery else part
            for part in self.parts
        )
        return replace(self, parts=tuple(parts), delivery=own)


def make_plan(
    request: SpeechRequest,
    manifest: Manifest,
    profiles: Mapping[str, Profile],
    lexicon: Lexicon = NO_LEXICON,
    *,
    cloned: bool = False,
    saved: Saved = no_saved,
) -> Plan:
    """Plan the speech of a request: its fields override the voice's profile, which overrides the model's defaults.

    It takes time that grows with the text, so that it has to be called in a thread.

    Args:
        request: the request.
        manifest: the model's manifest.
        profiles: the voice profiles, by id.
        lexicon: the operator's pronunciation dictionary; the request's own entries override it.
        cloned: whether the request's own voice is a cloned one, which `Plan.spoken_by` fills in.
        saved: finds the cloned voices that are kept.

    Raises:
        InvalidRequestError: something in it does not fit the model.
    """
    deliveries = Deliveries(request, manifest, profiles, cloned=cloned, saved=saved)
    wording = Wording(request, manifest, lexicon)
    try:
        parsed = tags.parse(request.input, partial(convert, text_format=request.text_format))
    except tags.TagError as error:
        raise InvalidRequestError(str(error), param="input") from None
    names = dict.fromkeys(part.voice for part in parsed if isinstance(part, tags.Spoken))
    voices = {name: deliveries.named(name) for name in names}
    parts: list[Part] = []
    prepared: list[Prepared] = []
    for part in parsed:
        if isinstance(part, tags.Silence):
            _add_silence(parts, part.seconds)
            continue
        done = wording.prepared(part.text, voices[part.voice].language)
        prepared.append(done)
        if is_speakable(done.text):
            parts.append(Passage(done.text, voices[part.voice]))
    letters = Letters(sum(done.letters.all for done in prepared), sum(done.letters.foreign for done in prepared))
    check_letters(letters, manifest)
    rate = manifest.sizes.codec.sample_rate
    if not any(isinstance(part, Passage) or tags.samples(part.seconds, rate) for part in parts):
        raise InvalidRequestError("input has nothing to speak; send a text, or silences of some length", param="input")
    return Plan(
        parts=tuple(parts),
        delivery=deliveries.own,
        stand_in=deliveries.stand_in,
        instruction_dropped=deliveries.instruction_dropped,
        seed=seed_of(request),
        exact_frames=request.exact_frames,
        most_frames=request.max_new_tokens,
        text_changes=tuple(dict.fromkeys(name for done in prepared for name in done.changed)),
        text_notes=tuple(dict.fromkeys(note for done in prepared for note in done.notes)),
        sentences=request.timestamps == "sentence",
        trim_start=request.trim_start,
        script=_script(request, parts) if request.timestamps else None,
    )


def _script(request: SpeechRequest, parts: Sequence[Part]) -> Script:
    untagged = tags.without_tags(request.input)
    passages = [part.text if isinstance(part, Passage) else "" for part in parts]
    return Script(request.input, untagged, convert(untagged, request.text_format), passages)


def seed_of(request: SpeechRequest) -> int:
    """The seed of a request's first chunk: the one that it names, or a random one."""
    return secrets.randbelow(_RANDOM_SEEDS) if request.seed is None else request.seed


def _add_silence(parts: list[Part], seconds: Decimal) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, tags.Silence):
        parts[-1] = tags.Silence(last.seconds + seconds)
    else:
        parts.append(tags.Silence(seconds))
