"""Weighted voice formulas, as Kokoro Web writes them: `af_heart*0.5 + af_bella*0.5`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

_TOLERANCE = Decimal("0.0001")
"""How far the weights' sum may be from 1: Kokoro Web's own."""

_WEIGHT = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")


class FormulaError(ValueError):
    """Not a formula; the message says where and why."""


@dataclass(frozen=True)
class Term:
    """One voice of a formula and its weight, from 0 to 1."""

    voice: str
    weight: Decimal


def is_formula(voice: str) -> bool:
    """Whether a voice's name is a formula of more than the name."""
    return "*" in voice or "+" in voice


def parse(formula: str, names: Iterable[str] = ()) -> list[Term]:
    """Read a formula; a voice without a weight, alone, weighs 1. White space and plus signs too many do not matter.

    Args:
        formula: as a request has it.
        names: of voices; those that hold `+` or `*` themselves are known by them, in any case.

    Raises:
        FormulaError: it is none, or its weights do not add up to 1.
    """
    terms = [found for found in _terms_among(names).finditer(formula) if found["known"] or found["other"].strip()]
    if not terms:
        raise FormulaError("a voice formula must name a voice, such as af_heart*0.5+af_bella*0.5")
    if len(terms) == 1 and not terms[0]["known"] and "*" not in terms[0]["other"]:
        return [Term(terms[0]["other"].strip(), Decimal(1))]
    weighted = [_term(number, found) for number, found in enumerate(terms, start=1)]
    total = sum((term.weight for term in weighted), Decimal(0))
    if abs(total - 1) > _TOLERANCE:
        raise FormulaError(f"the weights of a voice formula must add up to 1, not {total:.4f}")
    return weighted


def heaviest(terms: list[Term]) -> Term:
    """The term that weighs most, the first of those that do."""
    return max(terms, key=lambda term: term.weight)


def _terms_among(names: Iterable[str]) -> re.Pattern[str]:
    """What matches one term and the plus sign behind it: a name that holds such signs and its weight, or any other."""
    spellings = [
        "".join("[ _]" if letter in " _" else re.escape(letter) for letter in name)
        for name in sorted(names, key=len, reverse=True)
        if is_formula(name)
    ]
    known = "|".join(spellings) or r"(?!)"  # the latter matches nothing
    return re.compile(rf"\s*(?:(?P<known>{known})\s*\*(?P<weight>[^+*]*)|(?P<other>[^+]*))(?:\+|\Z)", re.IGNORECASE)


def _term(number: int, found: re.Match[str]) -> Term:
    voice, weight = found["known"], found["weight"]
    if voice is None:
        voice, _, weight = found["other"].partition("*")
    voice, weight = voice.strip(), "".join(weight.split())
    if not voice or not _WEIGHT.fullmatch(weight):
        text = found[0].strip().removesuffix("+")
        raise FormulaError(f'term {number} of the voice formula, "{text[:60]}", must be a voice, * and a weight')
    if Decimal(weight) > 1:
        raise FormulaError(f"the weight in term {number} of the voice formula must be from 0 to 1")
    return Term(voice, Decimal(weight))
