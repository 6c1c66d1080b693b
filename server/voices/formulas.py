"""Reads weighted formulas of voices, in the ways that people write them.

Kokoro Web writes `af_heart*0.5 + af_bella*0.5`, Kokoro-FastAPI and OpenReader `af_heart(2)+af_bella(1)` or
`af_heart+af_bella`, and others `0.4*af_heart+0.6*af_bella` or commas. A voice without a weight weighs 1. The weights
need not add up to anything, because only the heaviest voice is heard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

_SIGNS = frozenset("*+(),")
_WEIGHT = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
_IN_BRACKETS = re.compile(r"([^()]*)\(([0-9.\s]*)\)")


class FormulaError(ValueError):
    """The text is not a formula; the message says where and why."""


@dataclass(frozen=True)
class Term:
    """One voice of a formula and its weight, from 0 up."""

    voice: str
    weight: Decimal


def is_formula(voice: str) -> bool:
    """Whether a voice's name has a sign of formulas."""
    return not _SIGNS.isdisjoint(voice)


def parse(formula: str, names: Iterable[str] = ()) -> list[Term]:
    """Read a formula; superfluous white space and plus signs are ignored.

    Args:
        formula: the formula as a request has it.
        names: names of voices; a name that holds signs of formulas itself is recognised, in any case.

    Raises:
        FormulaError: the text is not a formula, or all its weights are 0.
    """
    found = [term for term in _terms_among(names).finditer(formula) if term["known"] or term["other"].strip()]
    if not found:
        raise FormulaError("a voice formula must name a voice, such as af_heart*0.5+af_bella*0.5")
    terms = [_term(number, term) for number, term in enumerate(found, start=1)]
    if not any(term.weight for term in terms):
        raise FormulaError("a voice formula must give some voice a weight of more than 0")
    return terms


def heaviest(terms: list[Term]) -> Term:
    """Return the term of the highest weight; the first one if several have it."""
    return max(terms, key=lambda term: term.weight)


def _terms_among(names: Iterable[str]) -> re.Pattern[str]:
    """Make a pattern of one term and the sign behind it: a name that holds such signs with its weight, or any other."""
    spellings = [
        "".join("[ _]" if letter in " _" else re.escape(letter) for letter in name)
        for name in sorted(names, key=len, reverse=True)
        if is_formula(name)
    ]
    known = "|".join(spellings) or r"(?!)"  # the latter matches nothing
    before, behind = r"(?:(?P<before>[0-9.][0-9. ]*)\*\s*)?", r"(?:\*(?P<behind>[^+*,]*)|\((?P<share>[^()+,]*)\)\s*)?"
    return re.compile(rf"\s*(?:{before}(?P<known>{known})\s*{behind}|(?P<other>[^+,]*))(?:[+,]|\Z)", re.IGNORECASE)


def _term(number: int, found: re.Match[str]) -> Term:
    if found["known"]:
        weights = [weight for weight in found.group("before", "behind", "share") if weight is not None]
        voice = found["known"]
        if not weights and not set(voice) & set("+,"):  # of a name that looks like a voice and its weight, both
            voice, weights = _voice_and_weights(voice)
    else:
        voice, weights = _voice_and_weights(found["other"].strip())
    text = "".join((weights or ["1"])[0].split())
    if not voice or len(weights) > 1 or not _WEIGHT.fullmatch(text):
        raise FormulaError(
            f"term {number} of the voice formula must be a voice, alone or with a weight, "
            "such as af_heart*0.5 or af_heart(2)"
        )
    return Term(voice, Decimal(text))


def _voice_and_weights(term: str) -> tuple[str, list[str]]:
    if shared := _IN_BRACKETS.fullmatch(term):
        return shared[1].strip(), [shared[2]]
    voice, *weights = (part.strip() for part in term.split("*"))
    if len(weights) == 1 and _WEIGHT.fullmatch("".join(voice.split())) and not _WEIGHT.match(weights[0]):
        return weights[0], [voice]
    return voice, weights
