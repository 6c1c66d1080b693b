"""What is read out, piece by piece: a plan's silences, and its speech in chunks that fit the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from server.engine.prompt import Prompt
from server.models.pool_entry import SpeechEngine
from server.speech.plan import Delivery, Part, Passage, Plan
from server.text import tags
from server.text.chunks import Chunk, chunks
from server.text.lines import PARAGRAPH, ends_sentence
from server.text.sentences import Boundary
from server.voices import languages

SHORTEST = "a"
"""A text that fits every model beside an instruction that does."""


class Said(NamedTuple):
    """A chunk, how it is spoken, and whether it must stay whole even where it does not fit the model."""

    chunk: Chunk
    delivery: Delivery
    whole: bool = False


Piece = Said | tags.Silence


def prompt_of(engine: SpeechEngine, text: str, delivery: Delivery) -> Prompt:
    """The prompt of a text; errors are those of the engine."""
    speaker, language, instruction = delivery.speaker, delivery.language, delivery.instruction
    return engine.prompt(text, speaker=speaker, language=language, instruction=instruction)


def pieces_of(plan: Plan, engine: SpeechEngine) -> Iterator[Piece]:
    """The chunks of all parts, and the silences.

    Raises:
        PromptError: before the first piece, if the instruction of a voice that comes later leaves no room for text.
    """
    _, *others = dict.fromkeys([plan.delivery, *(part.delivery for part in plan.parts if isinstance(part, Passage))])
    for other in others:
        prompt_of(engine, SHORTEST, other)
    for part, following in zip(plan.parts, [*plan.parts[1:], None], strict=True):
        if isinstance(part, tags.Silence):
            yield part
            continue
        last = _end(part, following)
        if plan.exact_frames is not None:
            text = part.text.replace(PARAGRAPH, " ")
            yield Said(Chunk(text, engine.count_tokens(text), last), part.delivery, whole=True)
            continue
        for chunk in chunks(part.text, languages.code(part.delivery.language), engine.count_tokens):
            ending = replace(chunk, boundary=last) if chunk.boundary is Boundary.TEXT else chunk
            yield Said(ending, part.delivery)


def _end(part: Passage, following: Part | None) -> Boundary:
    """What ends with a part: all, or what somebody says before another voice goes on."""
    if not isinstance(following, Passage):
        return Boundary.TEXT
    return Boundary.SENTENCE if ends_sentence(part.text) else Boundary.CLAUSE


def smaller(said: Said, engine: SpeechEngine) -> list[Said]:
    """Parts of a chunk of about half its tokens, in order; none if it cannot be cut."""
    chunk, delivery, whole = said
    text, most = chunk.text, engine.count_tokens(chunk.text) // 2
    if whole or len(text) < 2:
        return []
    parts = list(chunks(text, languages.code(delivery.language), engine.count_tokens, max(most, 1)))
    if len(parts) == 1:  # one grapheme cluster of so many characters that it is nothing that anybody says
        halves = text[: len(text) // 2], text[len(text) // 2 :]
        parts = [Chunk(half, most, Boundary.CHARACTER) for half in halves]
    parts[-1] = replace(parts[-1], boundary=chunk.boundary)
    return [Said(part, delivery) for part in parts]
