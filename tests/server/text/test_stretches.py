"""Long texts are looked at a stretch at a time, which changes nothing that is said."""

from __future__ import annotations

import pytest

from server.text.alphabet import adapted
from server.text.stretches import STRETCH_CHARS, stretches

SENTENCE = "On 3 May 2021 Dr. Smith paid $1,250.50 for no. 5, and nobody knew why. "
TITLE = "Mrs. Smith was very late. "
"""A longest stretch has 192 of it and ends behind the next one's `Mrs. Smi`."""
ABBREVIATED = "It was approx. Nine of them came, cf. Anna, and sat by the fire. "
SMALL = "she had approx. nine books and no. 5 of them "
PARAGRAPH = "the train was late again.\n\n"
ALPHABET = " !\"'(),-.:;?" + "".join(map(chr, range(65, 91))) + "".join(map(chr, range(97, 123)))


@pytest.mark.parametrize(
    "text",
    ["", "short", SENTENCE * 200, PARAGRAPH * 500, "word " * 3000, "x" * 12_345, "\n\n" * 6000 + "end", " " * 20_000],
)
def test_they_are_the_text(text: str) -> None:
    found = list(stretches(text))
    assert "".join(stretch + joint for stretch, joint in found) == text
    assert all(len(stretch) <= STRETCH_CHARS for stretch, _ in found)
    assert all(not joint.strip() for _, joint in found)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (PARAGRAPH * 500, "again."),
        (SENTENCE * 200, "why."),
        (TITLE * 400, "late."),
        (ABBREVIATED * 100, "fire."),
        ("word " * 3000, "word"),
    ],
)
def test_they_end_where_nothing_reaches_across(text: str, ends: str) -> None:
    *others, _ = stretches(text)
    assert others
    assert all(stretch.endswith(ends) for stretch, _ in others)


@pytest.mark.parametrize("lead", range(0, len(SMALL), 3))
def test_where_no_sentence_ends_they_end_between_plain_words(lead: int) -> None:
    first, _ = next(stretches("x" * lead + " " + SMALL * 200))
    assert first.split()[-1].isalpha()


@pytest.mark.parametrize("lead", range(0, len(ABBREVIATED), 5))
def test_no_abbreviation_is_cut_from_what_follows(lead: int) -> None:
    text = ("x" * lead + " " + ABBREVIATED * 100).strip()
    assert "approx." not in adapted(text, ALPHABET, "en").text
    assert all(stretch.endswith("fire.") for stretch, _ in stretches(text, "en"))


@pytest.mark.parametrize("piece", [SENTENCE, SENTENCE + PARAGRAPH, PARAGRAPH, TITLE])
def test_what_is_said_is_the_same_many_times(piece: str) -> None:
    """A piece whose beginning and end are a sentence's is said in the same way wherever it stands."""
    times = 4 * STRETCH_CHARS // len(piece)
    once = adapted(piece.strip(), ALPHABET, "en").text
    joint = piece[len(piece.rstrip()) :]
    assert adapted((piece * times).strip(), ALPHABET, "en").text == joint.join([once] * times)


def test_what_is_dropped_is_told_once() -> None:
    text = ("The price is ☃ today. " * 300) + "And ☁ tomorrow."
    assert adapted(text, ALPHABET, "en").dropped == ("☃", "☁")
