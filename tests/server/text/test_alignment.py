"""Where what is said stands in what was written: the same words, others, and texts without any word in common."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text import alignment
from server.text.alignment import Alignment, matches
from server.text.prepare import Steps, prepare
from tests.server.text.written import TEXTS

WORDS = (0, 1, 2, 3, 4, 5, alignment._TAGS)


def parts(said: list[str], written: str) -> list[str]:
    """The parts of a written text that stand for these parts of what is said."""
    whole = " ".join(said)
    aligned = Alignment(whole, written)
    found, place, start = [], 0, 0
    for part in said:
        place = whole.index(part, place) + len(part)
        end = aligned.place(place)
        found.append(written[start:end].strip())
        start = end
    return found


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["Hello there.", "How are you?"], ["Hello there.", "How are you?"]),
        (["“Hello  there.”", "She left…"], ['"Hello there."', "She left."]),
        (["It costs $5.", "3 men came."], ["It costs five dollars.", "Three men came."]),
        (
            ["In 1999.", "In 2000.", "In 2001."],
            ["In nineteen ninety nine.", "In two thousand.", "In two thousand one."],
        ),
        (["1, 2, 3.", "4, 5."], ["One, two, three.", "Four, five."]),
        (["你好。", "“世界！”", "再见"], ["你好。", "“世界！”", "再见"]),
        (["See https://example.org/a.", "Then go."], ["See example dot org slash a.", "Then go."]),
        (["Long ago,", "in a land far away,", "she lived."], ["Long ago,", "in a land far away,", "she lived."]),
        (["Yes.", "Yes.", "No.", "Yes.", "Yes."], ["Yes.", "Yes.", "No.", "Yes.", "Yes."]),
        (["## Chapter 1", "It was **late**.", "Nobody came."], ["Chapter one.", "It was late.", "Nobody came."]),
        (["東京 was", "far."], ["was", "far."]),
        (["She asked…", "Dr. Smith left."], ["She asked.", "Doctor Smith left."]),
        (["It is late.", "12"], ["It is late.", "Twelve."]),
        (["I use Qwen 3"], ["I use the model chwen"]),
        (["Mrs. Ada came.", "Then she left."], ["Missus Ada came.", "Then she left."]),
        (["全角です！", "「はい？」", "Yes."], ["全角です! ", '"はい? "', "Yes."]),
    ],
)
@pytest.mark.parametrize("joint", [" ", "\n\n"])
def test_parts_of_what_is_said_are_found(written: list[str], said: list[str], joint: str) -> None:
    assert parts(said, joint.join(written)) == written


def test_a_text_that_repeats_itself_does_not_drift() -> None:
    plain = ("It was the same, and late again.",) * 2
    spelt = ("It was 1,234,567 again.", "It was one million two hundred thirty four thousand five hundred again.")
    lines = [plain, *[spelt] * 10, *[plain] * 10, *[spelt] * 10, plain]
    written, said = map(list, zip(*lines, strict=True))
    assert parts(said, " ".join(written)) == written


def test_what_is_left_out_moves_nothing_that_follows() -> None:
    dropped = " ".join(f"word{number} the a of" for number in range(500))
    said = ["One day the sun rose.", "It was warm, and the day was long."]
    assert parts(said, f"{said[0]} ({dropped}) {said[1]}")[1].endswith(said[1])
    assert parts(["First.", "Last one."], f"First.\n\n<!-- {dropped} -->\n\nLast one.")[0] == "First."


@given(TEXTS, st.integers(0, 100), st.integers(0, 100))
def test_places_are_in_the_text_and_in_order(text: str, first: int, second: int) -> None:
    said = prepare(text, ("english",), Steps()).text
    aligned = Alignment(said, text)
    low, high = sorted((min(first, len(said)), min(second, len(said))))
    assert 0 <= aligned.place(low) <= aligned.place(high) <= len(text)


@given(st.lists(st.integers(0, 5), max_size=30), st.lists(st.integers(0, 5), max_size=30))
def test_matched_words_are_the_same_and_in_order(said: list[int], written: list[int]) -> None:
    pairs = [*zip(*matches(said, written), strict=True)]
    assert all(said[i] == written[j] for i, j in pairs)
    assert all(one < other for pair, following in pairwise(pairs) for one, other in zip(pair, following, strict=True))
    assert [*zip(*matches(said, said), strict=True)] == [(place, place) for place in range(len(said))]


@given(st.lists(st.sampled_from(WORDS), max_size=30), st.lists(st.sampled_from(WORDS), max_size=30))
def test_anchors_among_many_words_are_those_among_few(said: list[int], written: list[int]) -> None:
    ranges = said, range(min(3, len(said)), len(said)), written, range(min(2, len(written)), len(written))
    assert [*alignment._many_anchors(*ranges)] == [*alignment._anchors(*ranges)]


@pytest.mark.parametrize("unit", ["word ", "a. b. ", "1 2 3 ", "你好", ". ! ? ", "a b c d e f g "])
def test_no_text_takes_long(unit: str) -> None:
    written = (unit * 100_000)[:100_000]
    said = written.replace("1", "one").replace("b", "c")[500:]
    aligned = Alignment(said, written)
    places = [aligned.place(place) for place in range(0, len(said), 60)]  # in quadratic time, minutes
    assert places == sorted(places)


UNLIKE = "".join(map(chr, (*range(0x4E00, 0x7680), *range(0x20000, 0x25000))))
"""30,000 characters, each of them a word that stands nowhere else."""


@pytest.mark.parametrize(
    ("said", "written", "megabytes"),
    [
        ("\u4eca" * 50_000, "\u4eca" * 50_000, 4),
        ("a. " * 16_500, "a. " * 16_500, 4),
        ("\U0001d400 " * 25_000, "\U0001d400 " * 25_000, 4),
        (f"five {UNLIKE} six", f"5 {UNLIKE} 6", 6),
        ("five a " * 10_000, "5 a " * 10_000, 4),
    ],
    ids=["one character", "sentences", "one word", "other ends", "many gaps"],
)
def test_a_text_of_very_many_words_takes_little_memory(said: str, written: str, megabytes: int) -> None:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        found = Alignment(said, written)
        held, most = (traced - before for traced in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert found.place(0) == 0
    assert most < megabytes * 1_000_000
    assert held < 1_000_000
