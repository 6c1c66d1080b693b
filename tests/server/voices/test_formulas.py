"""Weighted voice formulas."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.voices.formulas import FormulaError, Term, heaviest, is_formula, parse


@pytest.mark.parametrize(
    ("formula", "terms"),
    [
        ("af_heart", [("af_heart", "1")]),
        (" af_heart\n", [("af_heart", "1")]),
        ("+af_heart+", [("af_heart", "1")]),
        ("af_heart*1", [("af_heart", "1")]),
        ("af_heart*0.5+af_bella*0.5", [("af_heart", "0.5"), ("af_bella", "0.5")]),
        ("a*0.3333 + b_2*0.3333 + c-3*0.3333", [("a", ".3333"), ("b_2", ".3333"), ("c-3", ".3333")]),
        ("a * .25 + b * 0.75 + c * 0.", [("a", "0.25"), ("b", "0.75"), ("c", "0")]),
        ("ä b*0. 5 + c d*0.5", [("ä b", "0.5"), ("c d", "0.5")]),
        ("a+b", [("a", "1"), ("b", "1")]),
        ("a, b,c", [("a", "1"), ("b", "1"), ("c", "1")]),
        ("a(2)+b(1)", [("a", "2"), ("b", "1")]),
        ("a(1.0)", [("a", "1.0")]),
        ("a ( 2 ) + b", [("a", "2"), ("b", "1")]),
        ("0.4*a+0.6*b", [("a", "0.4"), ("b", "0.6")]),
        ("a*2+0.5*b+c(3)+d", [("a", "2"), ("b", "0.5"), ("c", "3"), ("d", "1")]),
        ("a*0.5+b*0.6", [("a", "0.5"), ("b", "0.6")]),
        ("a*100", [("a", "100")]),
        ("0.5*2", [("0.5", "2")]),
        ("Zira (English)", [("Zira (English)", "1")]),
    ],
)
def test_formulas_are_read_in_every_notation(formula: str, terms: list[tuple[str, str]]) -> None:
    assert parse(formula) == [Term(voice, Decimal(weight)) for voice, weight in terms]


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("", "must name a voice"),
        (" + ", "must name a voice"),
        ("a*0.5+b*", "term 2 of the voice formula must be"),
        ("*0.5+b*0.5", "term 1"),
        ("a*0.5*b*0.5", "term 1"),
        ("a*+b*1", "term 1"),
        ("a*x", "term 1"),
        ("a*-1+b*2", "term 1"),
        ("a*nan", "term 1"),
        ("a*1_0", "term 1"),
        ("a()", "term 1"),
        ("(2)", "term 1"),
        ("a*0", "some voice a weight of more than 0"),
        ("a*0+b(0)", "some voice a weight of more than 0"),
    ],
)
def test_what_is_no_formula_says_why(formula: str, message: str) -> None:
    with pytest.raises(FormulaError, match=message):
        parse(formula)


@pytest.mark.parametrize(
    ("formula", "voice"),
    [
        ("a*0.2+b*0.8", "b"),
        ("a*0.5+b*0.5", "a"),
        ("a*0.2+b*0.4+c*0.4", "b"),
        ("a", "a"),
        ("a+b", "a"),
        ("a+b(2)", "b"),
        ("0.4*a+0.6*b", "b"),
        ("a*0.9+b", "b"),
    ],
)
def test_the_heaviest_wins_and_the_first_of_equals(formula: str, voice: str) -> None:
    assert heaviest(parse(formula)).voice == voice


@pytest.mark.parametrize(
    ("voice", "expected"),
    [("ryan", False), ("Uncle Fu", False), ("a*1", True), ("a+b", True), ("a(2)", True), ("a,b", True)],
)
def test_a_name_is_no_formula(voice: str, expected: bool) -> None:
    assert is_formula(voice) is expected


@pytest.mark.parametrize(
    ("formula", "terms"),
    [
        ("a+b*1", [("a+b", "1")]),
        ("A+B*0.5+a*0.5", [("A+B", "0.5"), ("a", "0.5")]),
        ("a*1*0.5 + a+b * 0.5", [("a*1", "0.5"), ("a+b", "0.5")]),
        ("a+b+c*0.5+a+b*0.5", [("a+b+c", "0.5"), ("a+b", "0.5")]),
        ("x_+y*1", [("x_+y", "1")]),
        ("a*1", [("a", "1")]),
        ("(*)+*1", [("(*)+", "1")]),
        ("a+b(2)+a", [("a+b", "2"), ("a", "1")]),
        ("0.4*A+B+0.6*a", [("A+B", "0.4"), ("a", "0.6")]),
        ("a+a+b", [("a", "1"), ("a+b", "1")]),
        ("a+bc", [("a", "1"), ("bc", "1")]),
        ("a+b*1(2)", None),
        ("2*a+b*1", None),
    ],
)
def test_names_that_hold_signs_are_known(formula: str, terms: list[tuple[str, str]] | None) -> None:
    names = ["a", "a+b", "a+b+c", "a*1", "x +y", "(*)+"]
    if terms is None:
        with pytest.raises(FormulaError):
            parse(formula, names)
        return
    assert parse(formula, names) == [Term(voice, Decimal(weight)) for voice, weight in terms]


IDS = st.text("abcXYZ019_-", min_size=1, max_size=8)


@given(st.lists(st.tuples(IDS, st.integers(1, 100)), min_size=2, max_size=6), st.sampled_from(["+", " + ", "\n+\t"]))
def test_a_written_formula_is_read_back(shares: list[tuple[str, int]], plus: str) -> None:
    total = sum(share for _, share in shares)
    terms = [Term(voice, round(Decimal(share) / total, 6)) for voice, share in shares]
    assert parse(plus.join(f"{term.voice}*{term.weight}" for term in terms)) == terms


@given(st.text("ab*+. 01-(),", max_size=30))
def test_any_text_is_a_formula_or_an_error_that_says_so(text: str) -> None:
    try:
        terms = parse(text, ["a+b", "a*0", "b b"])
    except FormulaError as error:
        assert "voice formula" in str(error)
    else:
        assert heaviest(terms).weight > 0
        assert all(term.voice and term.weight >= 0 for term in terms)
