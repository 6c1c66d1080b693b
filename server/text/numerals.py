"""Writes numbers in words, by `num2words`."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Literal

from num2words import CONVERTER_CLASSES, num2words  # type: ignore[import-untyped]

MOST_DIGITS = 15
"""The most digits of a number that is read as a whole; longer numbers are read digit by digit."""


def has_words(language: str | None) -> bool:
    """Whether numbers can be written out in a language, by its ISO 639-1 code."""
    return bool(language in CONVERTER_CLASSES)


@lru_cache(4096)
def words(number: str, language: str = "en", kind: Literal["cardinal", "ordinal", "year"] = "cardinal") -> str:
    """Write a number as words.

    Args:
        number: digits, for cardinals with a decimal fraction behind a point or none.
        language: one that `has_words`.
        kind: `twenty-one`, `twenty-first`, or `nineteen ninety-nine`.
    """
    whole, _, fraction = number.partition(".")
    if len(whole) > MOST_DIGITS or (len(whole) > 1 and whole.startswith("0")):
        said = digits(whole, language)
    else:
        said = str(num2words(int(whole or "0"), lang=language, to=kind)).replace(",", "")
    if not fraction:
        return said
    if language != "en":
        return str(num2words(Decimal(number), lang=language))
    return f"{said} point {digits(fraction)}"


def digits(number: str, language: str = "en") -> str:
    """Write each digit as a word."""
    return " ".join(_digit(digit, language) for digit in number if digit.isdecimal())


@lru_cache(1024)
def _digit(digit: str, language: str) -> str:
    return str(num2words(int(digit), lang=language))
