"""The steps of preparation: which, in what order, and what is told of them."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import example, given, settings

from server.text.prepare import MAX_NAMED, Step, Steps, prepare
from tests.server.text.written import CLEAN, TEXTS, said

ENGLISH = ("english",)


class Folded(NamedTuple):
    text: str
    dropped: str


def ascii_only(text: str) -> Folded:
    kept = "".join(letter if letter.isascii() else " " for letter in text)
    return Folded(kept, "".join(letter for letter in text if not letter.isascii()))


@pytest.mark.parametrize("text", CLEAN.values(), ids=CLEAN.keys())
def test_what_people_call_clean_reaches_a_model_as_it_is(text: str) -> None:
    done = prepare(text, ENGLISH, Steps())
    assert (done.text, done.changed, done.notes) == (text, (), ())


@settings(deadline=None)
@given(TEXTS)
@example("42. \n...one")
@example("wait ..\n.. and ?!?!\n?!?!")
def test_no_letter_or_digit_is_lost_and_nothing_is_left_to_do(text: str) -> None:
    done = prepare(text, ENGLISH, Steps())
    assert said(done.text) == said(text)
    assert prepare(done.text, ENGLISH, Steps()).text == done.text


def test_steps_come_in_their_order() -> None:
    seen: list[str] = []

    def step(name: str) -> Step:
        def change(text: str) -> str:
            seen.append(text)
            return f"{text} {name}"

        return change

    def alphabet(text: str) -> Folded:
        seen.append(text)
        return Folded(f"{text} four", "")

    steps = Steps(lexicon=step("two"), links=step("three"), alphabet=alphabet)
    done = prepare("\ufeffwrapped\n line ====", ENGLISH, steps)
    assert seen == [
        "wrapped line ===",
        "wrapped line === two",
        "wrapped line === two three",
    ]
    assert done.text == "wrapped line === two three four"
    assert done.changed == ("invisibles", "blanks", "lines", "runs", "lexicon", "links", "alphabet")


def test_what_an_alphabet_drops_is_told_in_ascii() -> None:
    done = prepare("We met in 東京, 東京 that is.\n\n東京\n\nBye.", ENGLISH, Steps(alphabet=ascii_only))
    assert done.text == "We met in , that is.\n\nBye."
    assert done.notes == ("dropped U+6771 U+4EAC",)
    assert done.letters.foreign == 6
    many = prepare("".join(map(chr, range(0x4E00, 0x4E00 + MAX_NAMED + 5))), ENGLISH, Steps(alphabet=ascii_only))
    assert many.notes[0].endswith("and 5 others")
    assert many.notes[0].isascii()


def test_letters_are_counted_before_they_are_folded() -> None:
    assert prepare("Москва", ENGLISH, Steps(alphabet=ascii_only)).letters == (6, 6)
