"""From a plan to what is read: chunks with their voices, whole parts, and chunks that are cut further."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from server.engine.job import Sampling
from server.engine.manner import InstructionError
from server.engine.prompt import Prompt
from server.manifest import Manifest
from server.speech.delivery import Delivery
from server.speech.pieces import VoicedChunk, pieces_of, smaller
from server.speech.plan import Part, Passage, Plan
from server.text.chunks import Chunk
from server.text.sentences import Boundary
from server.text.tags import Silence
from tests.server.fakes import FakeEngine, manifest_of

ANNA = Delivery("serena", "english", None, Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0), 1.0)
MAX = replace(ANNA, speaker="ryan", instruction="Shout.")


class CountingEngine(FakeEngine):
    """An engine that counts words and refuses instructions."""

    def __init__(self) -> None:
        self.manifest = Manifest.model_validate(manifest_of("m"))

    def prompt(self, text: str, *, speaker: str | None, instruction: str | None, **_: object) -> Prompt:
        if instruction:
            raise InstructionError("the instructions take too many positions")
        return Prompt(np.zeros((len(text), 1), np.float32), prefix=0)


def plan_of(*parts: Part, exact_frames: int | None = None) -> Plan:
    return Plan(
        parts, ANNA, stand_in=False, instruction_dropped=False, seed=1, exact_frames=exact_frames, most_frames=None
    )


def read(*parts: Part, **fields: Any) -> list[tuple[str, Boundary, str | None]]:
    pieces = pieces_of(plan_of(*parts, **fields), CountingEngine())
    return [
        (piece.chunk.text, piece.chunk.boundary, piece.delivery.speaker)
        for piece in pieces
        if isinstance(piece, VoicedChunk)
    ]


def test_paragraphs_are_chunks_of_their_own() -> None:
    assert read(Passage("Hello.\n\nBye.", ANNA)) == [
        ("Hello.", Boundary.PARAGRAPH, "serena"),
        ("Bye.", Boundary.TEXT, "serena"),
    ]


def test_with_exact_frames_a_part_is_one_chunk_without_a_line_break() -> None:
    parts = Passage("Hello.\n\nBye.", ANNA), Silence(Decimal(1)), Passage("Yes.\n\nNo.", ANNA)
    assert read(*parts, exact_frames=5) == [
        ("Hello. Bye.", Boundary.TEXT, "serena"),
        ("Yes. No.", Boundary.TEXT, "serena"),
    ]


def test_another_voice_goes_on_after_a_pause() -> None:
    other = replace(ANNA, speaker="ryan")
    parts = [Passage("“Yes.”", ANNA), Passage("she said", other), Passage("and left.", ANNA), Silence(Decimal(1))]
    assert read(*parts, Passage("Why?", other)) == [
        ("“Yes.”", Boundary.SENTENCE, "serena"),
        ("she said", Boundary.CLAUSE, "ryan"),
        ("and left.", Boundary.TEXT, "serena"),
        ("Why?", Boundary.TEXT, "ryan"),
    ]


def test_a_voice_that_cannot_speak_is_told_before_anything_is_read() -> None:
    pieces = pieces_of(plan_of(Passage("One.", ANNA), Passage("Two.", MAX)), CountingEngine())
    with pytest.raises(InstructionError):
        next(pieces)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two three, four five six", ["one two three,", "four five six"]),
        ("one two", ["one", "two"]),
        ("word", ["wo", "rd"]),
        ("e" + "\u0301" * 9, ["e" + "\u0301" * 4, "\u0301" * 5]),
        ("👩\u200d👩\u200d👧\u200d👦", ["👩\u200d👩", "\u200d👧\u200d👦"]),
    ],
)
def test_a_chunk_is_cut_into_halves(text: str, expected: list[str]) -> None:
    found = smaller(VoicedChunk(Chunk(text, 10, Boundary.PARAGRAPH), ANNA), CountingEngine())
    assert [part.chunk.text for part in found] == expected
    assert found[-1].chunk.boundary is Boundary.PARAGRAPH
    assert all(part.chunk.boundary < Boundary.SENTENCE for part in found[:-1])


@pytest.mark.parametrize(
    "voiced", [VoicedChunk(Chunk("a", 1, Boundary.TEXT), ANNA), VoicedChunk(Chunk("a b", 2, Boundary.TEXT), ANNA, True)]
)
def test_a_single_character_and_a_whole_part_are_not_cut(voiced: VoicedChunk) -> None:
    assert smaller(voiced, CountingEngine()) == []
