"""The comparison of written texts with the same written out by hand: its texts, its figures, and that it runs."""

from __future__ import annotations

import json
import string
from collections import Counter

import pytest

from benchmarks.quality import EMBEDDED
from benchmarks.written import Heard, listen, report, rows
from benchmarks.written_inputs import PAIRS, Pair

ALPHABET = json.loads((EMBEDDED / "manifest.json").read_text("utf-8"))["alphabet"]
KINDS = {
    *("curly quotes", "dashes", "headings", "lists", "chat answers", "wrapped mails", "prices", "dates", "times"),
    *("phone numbers", "units", "URLs", "emoji"),
}


def test_there_are_sixty_pairs_or_more_of_all_kinds() -> None:
    assert len(set(PAIRS)) == len(PAIRS) >= 60
    counts = Counter(pair.kind for pair in PAIRS)
    assert counts.keys() >= KINDS and min(counts[kind] for kind in KINDS) >= 2


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.kind)
def test_what_is_written_by_hand_needs_no_preparation(pair: Pair) -> None:
    assert set(pair.by_hand) <= set(ALPHABET) - set(string.digits + "$%&/()")
    assert pair.by_hand == " ".join(pair.by_hand.split()) != pair.written


def test_figures_are_of_the_text_written_by_hand() -> None:
    one, two = Pair("prices", "$1 is much", "One dollar is much."), Pair("dates", "May 1", "May first.")
    heard = [
        Heard(one, 0, "Done, Ollie is much.", "$1 is much."),
        Heard(two, 0, "May 1st", "May won"),
        Heard(two, 1, "", "May 1st"),
    ]
    prices, dates, total = rows(heard)
    assert (prices.name, prices.words, prices.written, prices.by_hand) == ("prices", 3, pytest.approx(200 / 3), 0)
    assert (dates.name, dates.written, dates.by_hand) == ("dates", 50, 25)
    assert (total.name, total.difference) == ("all", pytest.approx(300 / 7))
    babbled = Heard(one, 0, "One " * 200, "$1 is much")
    assert next(rows([babbled])).written == 100
    assert "not within 3 points" in report(heard)
    assert "are within 3 points" in report([Heard(one, 0, "$1 is much", "$1 is much")])


def test_both_texts_are_spoken_and_heard() -> None:
    pairs = [
        Pair("prices", "The train “to London” costs $12.", 'The train "to London" costs twelve dollars.'),
        Pair("nothing", "😊", "She found the old book under the table."),
    ]
    same, nothing = listen(EMBEDDED, pairs, [1])
    assert same.written == same.by_hand and "train" in same.by_hand.lower()
    assert not nothing.written and "book" in nothing.by_hand.lower()
