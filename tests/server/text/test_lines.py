"""Line breaks: those that wrap are blanks, those that part are paragraphs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from server.text.clean import single_blanks
from server.text.lines import ends_sentence, paragraphs
from tests.server.text.written import CLEAN, TEXTS, said

WRAPPED = {
    "a lower case word": ("bread for\nthe children", "bread for the children"),
    "German nouns": (
        "Ich kam müde von der\nArbeit und sah das\nHaus am See.",
        "Ich kam müde von der Arbeit und sah das Haus am See.",
    ),
    "a short first line": (
        "Ich sah das\nHaus am See und ging nach Hause.",
        "Ich sah das Haus am See und ging nach Hause.",
    ),
    "a name": ("It is the old town of\nLondon, and it is big.", "It is the old town of London, and it is big."),
    "the word I": ("My dear friend and\nI went home.", "My dear friend and I went home."),
    "a number": ("He paid\n42 dollars for it in all.", "He paid 42 dollars for it in all."),
    "a number with a period": ("When he came he was\n42. Then he turned.", "When he came he was 42. Then he turned."),
    "a quote": ('She asked for the\n"Red Book" of the library.', 'She asked for the "Red Book" of the library.'),
    "Han": ("我住在北\n京，那里有很多人。", "我住在北京，那里有很多人。"),
    "Han and a mark": ("他说\n“好的”\n，然后走了。", "他说“好的”，然后走了。"),
    "Kana": ("東\n京に行き\nました。", "東京に行きました。"),
    "Han and Latin": ("我用\nGoogle", "我用 Google"),
    "Hangul": ("저는 서울에\n삽니다.", "저는 서울에 삽니다."),
    "Cyrillic": ("Мы ехали в\nМоскву на поезде.", "Мы ехали в Москву на поезде."),
    "Arabic": ("ذهبت إلى\nالمدرسة اليوم", "ذهبت إلى المدرسة اليوم"),
    "French": ("la\nTour Eiffel est grande.", "la Tour Eiffel est grande."),
    "a broken word": ("to repro-\nduce it", "to reproduce it"),
    "a broken word, U+2010": ("to repro\u2010\nduce it", "to reproduce it"),
    "a compound": ("the well-\nKnown", "the well-Known"),
    "a number behind a hyphen": ("COVID-\n19", "COVID-19"),
    "a hyphen that waits": ("two-\nand three-year-olds", "two- and three-year-olds"),
    "a German hyphen that waits": ("Vor-\nund Nachteile", "Vor- und Nachteile"),
    "a dash": ("he came -\nlate", "he came - late"),
    "sentences": ("Hello.\nBye.", "Hello. Bye."),
    "a poem": (
        "Two roads diverged in a yellow wood,\nAnd sorry I could not travel both\nAnd be one traveler, long I stood",
        "Two roads diverged in a yellow wood, And sorry I could not travel both And be one traveler, long I stood",
    ),
    "a mail": (
        "Thank you for the letter of last week, which I\nhave read with great joy. We shall meet on\nMonday at the "
        "old\nstation.",
        "Thank you for the letter of last week, which I have read with great joy. We shall meet on Monday at the old "
        "station.",
    ),
    "a mail's end": ("Best regards,\nJohn", "Best regards, John"),
}

PARTED = {
    "a blank line": ("Hello.\n\nBye.", ["Hello.", "Bye."]),
    "no marks": ("Chapter One\n\nThe Storm", ["Chapter One", "The Storm"]),
    "bullets": ("Things to buy:\n- milk\n* bread\n• eggs", ["Things to buy:", "milk", "bread", "eggs"]),
    "an item that is wrapped": ("- milk of a\nbrown cow\n- bread", ["milk of a brown cow", "bread"]),
    "numbers": ("1. Open it.\n2. Close it.\n3. Go", ["1. Open it.", "2. Close it.", "3. Go"]),
    "numbers in brackets": ("(1) Open it\n(2) Close it", ["(1) Open it", "(2) Close it"]),
    "letters": ("a) Open it\nb) Close it", ["a) Open it", "b) Close it"]),
    "a list without bullets": ("Buy milk\nCall Mom\nPay rent", ["Buy milk", "Call Mom", "Pay rent"]),
    "a heading": (
        "Chapter One\nThe Storm of the Century\nIt was a dark night, and it rained.",
        ["Chapter One", "The Storm of the Century", "It was a dark night, and it rained."],
    ),
    "a heading that is underlined": ("Title\n===\nHello world.", ["Title", "Hello world."]),
    "a heading in capitals": ("INTRODUCTION\nThis paper shows that.", ["INTRODUCTION", "This paper shows that."]),
    "a Chinese chapter": ("第一章\n今天天气很好。", ["第一章", "今天天气很好。"]),
    "a rule": ("Part one.\n\n* * *\n\nPart two.", ["Part one.", "Part two."]),
    "a rule between lines": ("Part one\n───\nof it", ["Part one", "of it"]),
    "fields": ("From: Anna\nTo: Max\nSubject: Tea", ["From: Anna", "To: Max", "Subject: Tea"]),
    "dialogue": ("— Bonjour.\n— Salut, ça va ?", ["— Bonjour.", "— Salut, ça va ?"]),
    "nothing else": ("* * *\n\n---\n...", []),
}


@pytest.mark.parametrize(("text", "expected"), WRAPPED.values(), ids=WRAPPED.keys())
def test_a_line_that_is_wrapped_goes_on(text: str, expected: str) -> None:
    assert paragraphs(text) == expected
    assert paragraphs(single_blanks(text.replace("\n", " \r\n\t"))) == expected


@pytest.mark.parametrize(("text", "expected"), PARTED.values(), ids=PARTED.keys())
def test_breaks_that_the_author_meant_are_kept(text: str, expected: list[str]) -> None:
    assert paragraphs(text) == "\n\n".join(expected)
    assert paragraphs(single_blanks(text.replace("\n", " \r\n\t"))) == "\n\n".join(expected)


@pytest.mark.parametrize("text", CLEAN.values(), ids=CLEAN.keys())
def test_what_people_call_clean_stays_as_it_is(text: str) -> None:
    assert paragraphs(text) == text


@settings(deadline=None)
@given(TEXTS.map(single_blanks))
def test_no_letter_or_digit_is_lost_and_no_single_break_is_left(text: str) -> None:
    done = paragraphs(text)
    assert said(done) == said(text)
    assert paragraphs(done) == done
    assert "\n" not in done.replace("\n\n", "")
    assert "\n\n\n" not in done


@pytest.mark.parametrize(
    "unit", ["a\n", "- a\n", "Word\n", "a-\n", "北\n", "1. a\n", "A: b\n", "-\n", "a\n\n", "A-", " a"]
)
def test_paragraphs_take_linear_time(unit: str) -> None:
    text = (unit * 200_000)[:200_000].strip()  # in quadratic time, ten minutes
    assert said(paragraphs(text)) == said(text)


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("Yes.", True),
        ("Yes?!”)", True),
        ("好。」", True),
        ("well…", True),
        ("a title", False),
        ("first,", False),
        ("", False),
    ],
)
def test_ends_of_sentences(text: str, ended: bool) -> None:
    assert ends_sentence(text) is ended
