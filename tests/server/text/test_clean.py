"""Invisible characters, blanks and runs: what nobody sees or says goes, all else stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings

from server.text.clean import MOST_MARKS, short_runs, single_blanks, without_invisibles
from tests.server.text.written import CLEAN, TEXTS, said

STEPS = (without_invisibles, single_blanks, short_runs)


@pytest.mark.parametrize("text", CLEAN.values(), ids=CLEAN.keys())
@pytest.mark.parametrize("step", STEPS)
def test_what_people_call_clean_stays_as_it_is(step: Callable[[str], str], text: str) -> None:
    assert step(text) == text


@settings(deadline=None)
@given(TEXTS)
def test_no_letter_or_digit_is_lost_and_nothing_is_left_to_do(text: str) -> None:
    for step in STEPS:
        done = step(text)
        assert said(done) == said(text)
        assert step(done) == done


@pytest.mark.parametrize(
    "unseen",
    [
        *("\u200b", "\ufeff", "\u00ad", "\u2060", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069", "\u061c"),
        *("\u200c", "\u200d", "\x00", "\x07", "\x1b", "\x7f", "\x80", "\u3164", "\u034f", "\ufe0f", "\U000e0041"),
        "\x1b[31m",
        "\x1b[0m",
    ],
)
def test_the_invisible_is_dropped(unseen: str) -> None:
    assert without_invisibles(f"{unseen}soft{unseen}ly {unseen}spoken{unseen}") == "softly spoken"


@pytest.mark.parametrize("line_break", ["\n", "\r\n", " \n  ", "\u2028"])
def test_a_soft_hyphen_at_a_line_end_joins_its_word(line_break: str) -> None:
    assert without_invisibles(f"repro\u00ad{line_break}duce it") == "reproduce it"


@pytest.mark.parametrize(
    "blank", [" ", "\t", "\u00a0", "\u2009", "\u202f", "\u3000", "\u2800", "\u1680", " \u00a0\t" * 50]
)
def test_every_blank_is_one_space(blank: str) -> None:
    assert single_blanks(f"{blank}five{blank}apples{blank}") == "five apples"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb", "a\nb"),
        ("a\rb\vc\fd\u0085e\u2028f", "a\nb\nc\nd\ne\nf"),
        ("a\u2029b", "a\n\nb"),
        ("a \n\t b", "a\nb"),
        ("a\n \n\t\nb", "a\n\nb"),
        ("\n\n\na" + "\n" * 60 + "b\n\n", "a\n\nb"),
        ("\r\n\r\na\r\n\r\nb", "a\n\nb"),
        (" \n\u3000\t\n", ""),
    ],
)
def test_line_breaks_are_one_or_two(text: str, expected: str) -> None:
    assert single_blanks(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing......... happened", "nothing... happened"),
        ("So,,,,,, here", "So,,, here"),
        ("Wait!!!!!!! What???????", "Wait!!! What???"),
        ("Name: ______ Date: ____", "Name: ___ Date: ___"),
        ("Title " + "=" * 300, "Title ==="),
        ("One . . . . . . . . 12", "One ... 12"),
        ("Great 🎉🎉🎉🎉🎉", "Great 🎉🎉🎉"),
        ("❤️❤️❤️❤️❤️", "❤️❤️❤️"),
        ("👍🏽👍🏽👍🏽👍🏽", "👍🏽👍🏽👍🏽"),
        ("……………", "………"),
        ("。。。。。", "。。。"),
        ("nooooooo 10000000", "nooooooo 10000000"),
        ("--", "--"),
        ("?!?!?!?!", "?!?!?!?!"),
        ("e" + "\u0301" * 1500, "e" + "\u0301" * MOST_MARKS),
    ],
)
def test_runs_of_one_symbol_are_short(text: str, expected: str) -> None:
    assert short_runs(text) == expected


@pytest.mark.parametrize(
    "unit", ["a", "\u200d", "👩\u200d", "\u0301", "= ", " ", "\n", "\u00ad\n", "❤\ufe0f", "\x1b[1"]
)
def test_no_text_takes_long(unit: str) -> None:
    text = (unit * 200_000)[:200_000]  # in quadratic time, ten minutes
    for step in STEPS:
        assert len(step(text)) <= len(text)
