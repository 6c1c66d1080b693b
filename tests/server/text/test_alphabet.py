"""Typography becomes ASCII, accents go, and what an alphabet lacks is dropped and told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.manifest import read_manifest
from server.text.alphabet import MOST_DROPPED, adapted, as_sentences, fold
from server.text.typography import plain_typography
from tests.bundles import TINY_BUNDLE

ALPHABET = read_manifest(TINY_BUNDLE).alphabet or ""

TYPOGRAPHY = [
    ("It isn\u2019t here. \u2018No\u2019, 5\u2032, \u02bcTis, it\u00b4s", "It isn't here. 'No', 5', 'Tis, it's"),
    ("\u201cStop,\u201d she said. \u00abYes\u00bb \u201eNo\u201c", '"Stop," she said. "Yes" "No"'),
    ("bad\u2026to wait. But why\u2014why now?", "bad, to wait. But why, why now?"),
    ("Yes \u2014 no \u2013 yes -- no - yes", "Yes, no, yes, no, yes"),
    ("Stop. \u2014 He", "Stop. He"),
    ("\u2014 Hello, she said.", "Hello, she said."),
    ("I\u2026 I do not know\u2026 Then", "I, I do not know. Then"),
    ("Wait... what? So.. \u201cWell\u2026\u201d", 'Wait, what? So. "Well."'),
    ("well\u2010known, non\u2011stop, London\u2013Paris", "well-known, non-stop, London-Paris"),
    ("1939\u20131945, 5 \u2013 7", "1939 to 1945, 5 to 7"),
    (
        "9am\u20135 pm, 9 AM \u2013 5, 5%\u201310%",
        "9am to 5 pm, 9 AM to 5, 5% to 10%",
    ),
    ("\u22125, x \u2212 2", "-5, x, 2"),
    ("\ufb01ne \ufb02ow \uff28\uff45\uff4c\uff4c\uff4f\uff0c\uff59\uff45\uff53\uff01", "fine flow Hello, yes!"),
    ("\u3002Yes\u3001no", ". Yes, no"),
    ("Word\u2122 and Brand\u00ae \u00a9", "Word and Brand"),
    ("a well-known 5 - 3", "a well-known 5 - 3"),
    ("Stra\u00dfe, \u00c6r\u00f8, \u0141ukasz", "Strasse, Aero, Lukasz"),
]
ACCENTS = [
    ("Jos\u00e9 ate in the caf\u00e9.", "Jose ate in the cafe."),
    ("Jose\u0301 ate", "Jose ate"),
    ("Fran\u00e7ois na\u00efve \u00c5ngstr\u00f6m Dvo\u0159\u00e1k", "Francois naive Angstrom Dvorak"),
]
MARKS = [
    ("Great!!! What?! Really??? So,,,,,, here", "Great! What? Really? So, here"),
    ("at 5 a.m., then", "at 5 a.m., then"),
    ("snake_case a|b", "snake case a b"),
    ("one\u00a0two\tthree   four\nfive", "one two three four\nfive"),
    ("  ends  ", "ends"),
    ("it ( is ) so", "it (is) so"),
]


@pytest.mark.parametrize(("text", "said"), [*TYPOGRAPHY, *ACCENTS, *MARKS])
def test_what_can_be_written_with_the_alphabet_is(text: str, said: str) -> None:
    folded = fold(text, ALPHABET, "en")
    assert folded == (said, ())
    assert fold(said, ALPHABET, "en") == folded


def test_an_alphabet_with_more_keeps_more() -> None:
    assert fold("Jos\u00e9 \u2019", ALPHABET + "\u00e9").text == "Jos\u00e9 '"
    assert fold("\u2014 \u4e1c", ALPHABET + "\u2014\u4e1c\u2019").text == "\u2014 \u4e1c"


def test_the_dash_of_a_range_is_read_in_the_language() -> None:
    assert plain_typography("5\u20137", "de") == "5 bis 7"
    assert plain_typography("5\u20137", None) == "5-7"


def test_what_is_left_is_dropped_and_told() -> None:
    assert fold("We met in \u6771\u4eac last \u043c\u0430\u0439 \U0001f60a.", ALPHABET) == (
        "We met in last.",
        ("\u6771", "\u4eac", "\u043c", "\u0430", "\u0439", "\U0001f60a"),
    )
    assert len(fold("".join(map(chr, range(0x4E00, 0x4F00))), ALPHABET).dropped) == MOST_DROPPED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is \u22125\u00b0C \u2014 cold\u2026", "It is minus five degrees Celsius, cold."),
        ("\u00a35 \u2192 \u20ac6", "Five pounds to six euros."),
        ("1939\u20131945", "Nineteen thirty-nine to nineteen forty-five."),
        ("\u03c0 \u2248 3.14", "Pi about three point one four."),
        ("\u201cWARNING!\u201d", '"Warning!"'),
    ],
)
def test_a_text_is_adapted_to_the_alphabet(text: str, said: str) -> None:
    assert adapted(text, ALPHABET, "en") == (said, ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Welcome\n\nfresh apples\n\n1. Open it.", "Welcome.\n\nFresh apples.\n\n1. Open it."),
        ("Hello Anna,\n\nthank you.\n\nyours - ", "Hello Anna.\n\nThank you.\n\nYours."),
        ("You need:", "You need:"),
        ("\"stop\" (now) 'so'", "\"Stop\" (now) 'so.'"),
        ("so (now)\n\n(So!)", "So (now).\n\n(So!)"),
        ('She said, "Why?"', 'She said, "Why?"'),
        ("So. '", "So.'"),
        ("So? - ", "So?"),
        ("", ""),
        ("-", "-"),
    ],
)
def test_what_stands_alone_is_a_sentence(text: str, said: str) -> None:
    assert as_sentences(text, ALPHABET) == said
    assert as_sentences(said, ALPHABET) == said


def test_an_alphabet_may_lack_what_makes_a_sentence() -> None:
    assert as_sentences("fresh apples", "abcdefghijklmnopqrstuvwxyz ") == "fresh apples"
    assert as_sentences("\u00dfa", "\u00dfaSA.") == "\u00dfa."


@given(st.text(), st.sampled_from(["en", "de", "zh", None]))
def test_nothing_outside_the_alphabet_is_left(text: str, language: str | None) -> None:
    for folded in (fold(text, ALPHABET, language), adapted(text, ALPHABET, language)):
        assert set(folded.text) <= {*ALPHABET, "\n"}
        assert fold(folded.text, ALPHABET, language).text == folded.text


@given(st.text(st.sampled_from(ALPHABET)))
def test_letters_and_digits_of_the_alphabet_stay(text: str) -> None:
    assert [one for one in fold(text, ALPHABET).text if one.isalnum()] == [one for one in text if one.isalnum()]


@pytest.mark.parametrize(
    "piece",
    [
        " ",
        "\n",
        "\u2014",
        " \u2014",
        "-",
        "- ",
        "--a",
        ".",
        ". ",
        "..a",
        ",",
        " ,",
        "\u2019",
        "1\u2013",
        "e\u0301",
        "\u0301",
        "\ufdfa",
        "\u6771",
        "!?",
        "_",
    ],
)
def test_a_very_long_text_is_linear_work(piece: str) -> None:
    text = (piece * (200_000 // len(piece) + 1))[:200_000]
    assert len(fold(text + "x", ALPHABET, "en").text) <= 20 * len(text)
