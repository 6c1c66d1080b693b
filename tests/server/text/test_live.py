"""Texts that arrive over time: cut the same however they come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.text.live import MOST_HELD, Granularity, Splitter

TEXT = (
    'Sure! Dr. Smith paid 3.14 dollars, and then he left for U.S. soil. "Why?" she asked. At 5 p.m. tomorrow: '
    "[pause: 0.5s] done. 🙂 Yes. Bye"
)
UNITS: dict[Granularity, list[str]] = {
    "none": [TEXT],
    "sentence": [
        "Sure!",
        "Dr. Smith paid 3.14 dollars, and then he left for U.S. soil.",
        '"Why?" she asked.',
        "At 5 p.m. tomorrow: [pause: 0.5s] done.",
        "🙂 Yes.",
        "Bye",
    ],
    "clause": [
        "Sure!",
        "Dr. Smith paid 3.14 dollars,",
        "and then he left for U.S. soil.",
        '"Why?" she asked.',
        "At 5 p.m. tomorrow: [pause: 0.5s] done.",
        "🙂 Yes.",
        "Bye",
    ],
}


def units_of(text: str, granularity: Granularity, step: int, language: str | None = "en") -> list[str]:
    splitter = Splitter(granularity, language)
    units = [unit for start in range(0, len(text), step) for unit in splitter.feed(text[start : start + step])]
    return units + splitter.flush()


@pytest.mark.parametrize("granularity", UNITS)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_units_are_the_same_however_the_text_comes(granularity: Granularity, step: int) -> None:
    assert units_of(TEXT, granularity, step) == UNITS[granularity]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["Dr. ", "No, ", "3.5 ", "[voice:a, b] ", "word ", "ends. ", "你好。", "\n\n", '"So!" ', "🙂"])
    ),
    st.sampled_from([1, 2, 5]),
    st.sampled_from(["sentence", "clause"]),
)
def test_nothing_is_lost_or_depends_on_the_pieces(parts: list[str], step: int, granularity: Granularity) -> None:
    text = "".join(parts)
    units = units_of(text, granularity, step, None)
    assert units == units_of(text, granularity, len(text) or 1, None)
    said, whole = "".join("".join(units).split()), "".join(text.split())
    assert whole.startswith(said)
    left = whole[len(said) :].replace("[voice:a,b]", "")
    assert not any(character.isalnum() for character in left)


def test_a_sentence_waits_for_the_first_sign_of_the_next() -> None:
    splitter = Splitter("sentence", "en")
    assert [splitter.feed(text) for text in ("It costs 3", ".", "14 ", "dollars", ".", " ", "S")] == [
        *[[]] * 6,
        ["It costs 3.14 dollars."],
    ]


def test_scripts_without_blanks() -> None:
    splitter = Splitter("sentence", None)
    assert [splitter.feed(character) for character in "你好。今天"] == [[], [], [], ["你好。"], []]


def test_a_text_that_stops_coming_is_settled_only_where_a_sentence_may_end() -> None:
    splitter = Splitter("sentence", "en")
    for text, settled in (("Hello.", ["Hello."]), (" Ask Dr.", []), (" Smith", []), ("?", ["Ask Dr. Smith?"])):
        assert splitter.feed(text) == []
        assert splitter.settle() == settled


@pytest.mark.parametrize("granularity", UNITS)
@pytest.mark.parametrize("step", [1, 1000])
def test_a_voice_tag_alone_goes_with_what_follows(granularity: Granularity, step: int) -> None:
    assert units_of("[voice:ann]\n\n [voice: bob] ... ", granularity, step) == []
    assert units_of("[voice:ann]\nThis is on her mind.", granularity, step) == ["[voice:ann]\nThis is on her mind."]
    assert units_of("[1s]", granularity, step) == ["[1s]"]
    units = units_of("It is so very late now. [voice:ann]", granularity, step)
    assert units[0].startswith("It is so very late now.")
    assert len(units) == 1


def test_no_cut_within_a_tag() -> None:
    text = "He said it at last [voice:somebody, who has a long name. Really] and then left"
    assert units_of(text, "clause", 1) == [text]


def test_an_endless_text_is_cut_between_words() -> None:
    units = units_of("word " * 1000, "sentence", 7)
    assert max(map(len, units)) <= MOST_HELD
    assert " ".join(units) == ("word " * 1000).strip()
    assert len(units_of("x" * 2500, "sentence", 100)) == 3


def test_half_an_emoji_at_the_end_is_replaced() -> None:
    splitter = Splitter("sentence", "en")
    assert splitter.feed("a \ud83d") == []
    assert splitter.flush() == ["a \ufffd"]


@pytest.mark.parametrize("granularity", ["sentence", "clause"])
@pytest.mark.parametrize("step", [7, 5000])
@pytest.mark.parametrize("sign", ["- ", "🙂 ", " ", "\n", "----- ", "🙂" * 99 + " ", "-", "... "])
def test_signs_without_end_are_dropped(sign: str, step: int, granularity: Granularity) -> None:
    signs = sign * (3000 // len(sign))
    units = units_of(f"{signs} Hello there", granularity, step)
    assert len(units) == 1
    assert units[0].endswith("Hello there")
    assert units_of(signs, granularity, step) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["- ", "🙂 ", " ", "\n", "x", "word ", "ends. ", "你好。", "no, ", "[voice:", "\ud83d", "-"]
            ),
            st.integers(1, 1200),
        ),
        max_size=5,
    ),
    st.sampled_from(["sentence", "clause"]),
)
def test_any_text_is_taken_in_and_no_more_of_it_held_than_is_waited_for(
    parts: list[tuple[str, int]], granularity: Granularity
) -> None:
    splitter = Splitter(granularity, None)
    for part, times in parts:
        splitter.feed(part * times)
        assert len(splitter._text) <= MOST_HELD
        splitter.settle()
    splitter.flush()
    assert not splitter.held
