"""Weighted voice formulas, as Kokoro Web writes them: `af_heart*0.5 + af_bella*0.5`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

_TOLERANCE = Decimal("0.0001")
"""How far the weights' sum may be from 1: Kokoro Web's own."""

_ALLOWED = re.compile(r"[A-Za-z0-9_.*+-]*")
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


def parse(formula: str) -> list[Term]:
    """Read a formula; a voice without a weight, alone, weighs 1. White space and plus signs too many do not matter.

    Raises:
        FormulaError: it is none, or its weights do not add up to 1.
    """
    plain = "".join(formula.split())
    if not _ALLOWED.fullmatch(plain):
        raise FormulaError("a voice formula holds letters, digits and -_.*+ only, such as af_heart*0.5+af_bella*0.5")
    terms = [term for term in plain.split("+") if term]
    if not terms:
        raise FormulaError("a voice formula must name a voice, such as af_heart*0.5+af_bella*0.5")
    if len(terms) == 1 and "*" not in terms[0]:
        return [Term(terms[0], Decimal(1))]
    weighted = [_term(number, term) for number, term in enumerate(terms, start=1)]
    total = sum((term.weight for term in weighted), Decimal(0))
    if abs(total - 1) > _TOLERANCE:
        raise FormulaError(f"the weights of a voice formula must add up to 1, not {total:.4f}")
    return weighted


def heaviest(terms: list[Term]) -> Term:
    """The term that weighs most, the first of those that do."""
    return max(terms, key=lambda term: term.weight)


def _term(number: int, text: str) -> Term:
    voice, _, weight = text.partition("*")
    if not voice or not _WEIGHT.fullmatch(weight):
        raise FormulaError(f'term {number} of the voice formula, "{text[:60]}", must be a voice, * and a weight')
    if Decimal(weight) > 1:
        raise FormulaError(f"the weight in term {number} of the voice formula must be from 0 to 1")
    return Term(voice, Decimal(weight))
