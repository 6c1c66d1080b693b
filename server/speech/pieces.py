"""Cuts a plan into pieces: its silences, and its speech in chunks that fit the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from server.engine.prompt import Prompt
from server.models.pool_entry import SpeechEngine
from server.speech.delivery import Delivery
from server.speech.plan import Part, Passage, Plan
from server.text import tags
from server.text.chunks import Chunk, chunks
from server.text.lines import PARAGRAPH, ends_sentence
from server.text.sentences import Boundary
from server.voices import languages

SHORTEST = "a"
"""A text that fits every model beside any instruction that fits it."""


class VoicedChunk(NamedTuple):
    """A chunk with how it is spoken, and whether it must stay whole even if it does not fit the model."""

    chunk: Chunk
    delivery: Delivery
    whole: bool = False


Piece = VoicedChunk | tags.Silence


def prompt_of(engine: SpeechEngine, text: str, delivery: Delivery) -> Prompt:
    """Build the prompt of a text; raises the engine's errors."""
    return engine.prompt(
        text,
        speaker=delivery.speaker,
        language=delivery.language,
        instruction=delivery.instruction,
        layout=delivery.layout,
        reference=delivery.reference,
    )


def pieces_of(plan: Plan, engine: SpeechEngine) -> Iterator[Piece]:
    """Yield the chunks of all parts, and the silences.

    Raises:
        PromptError: the instruction of a later voice leaves no room for text; this is raised before the first piece.
    """
    _, *others = dict.fromkeys([plan.delivery, *(part.delivery for part in plan.parts if isinstance(part, Passage))])
    for other in others:
        prompt_of(engine, SHORTEST, other)
    unit = Boundary.SENTENCE if plan.sentences else Boundary.PARAGRAPH
    for part, following in zip(plan.parts, [*plan.parts[1:], None], strict=True):
        if isinstance(part, tags.Silence):
            yield part
            continue
        last = _end(part, following)
        if plan.exact_frames is not None:
            text = part.text.replace(PARAGRAPH, " ")
            yield VoicedChunk(Chunk(text, engine.count_tokens(text), last), part.delivery, whole=True)
            continue
        for chunk in chunks(part.text, languages.code(part.delivery.language), engine.count_tokens, last=unit):
            ending = replace(chunk, boundary=last) if chunk.boundary is Boundary.TEXT else chunk
            yield VoicedChunk(ending, part.delivery)


def _end(part: Passage, following: Part | None) -> Boundary:
    """Find the boundary at a part's end: a sentence or clause if another voice goes on, else the end of the text."""
    if not isinstance(following, Passage):
        return Boundary.TEXT
    return Boundary.SENTENCE if ends_sentence(part.text) else Boundary.CLAUSE


def smaller(voiced: VoicedChunk, engine: SpeechEngine) -> list[VoicedChunk]:
    """Cut a chunk into parts of about half its tokens, in order; returns none if it cannot be cut."""
    chunk, delivery, whole = voiced
    text, most = chunk.text, engine.count_tokens(chunk.text) // 2
    if whole or len(text) < 2:
        return []
    parts = list(chunks(text, languages.code(delivery.language), engine.count_tokens, max(most, 1)))
    if len(parts) == 1:  # one grapheme cluster of very many characters, which nobody says
        halves = text[: len(text) // 2], text[len(text) // 2 :]
        parts = [Chunk(half, most, Boundary.CHARACTER) for half in halves]
    parts[-1] = replace(parts[-1], boundary=chunk.boundary)
    return [VoicedChunk(part, delivery) for part in parts]
