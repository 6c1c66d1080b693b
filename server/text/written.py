"""Writes numbers and other written forms as words, in linear time, for models that were trained on few of them."""

from __future__ import annotations

import re

from server.text import numerals
from server.text.english.abbreviations import spoken_abbreviations, spoken_slashes
from server.text.english.amounts import spoken_amounts
from server.text.english.capitals import spoken_capitals
from server.text.english.dates import spoken_dates, spoken_times
from server.text.english.numbers import spoken_numbers, spoken_phones, spoken_symbols
from server.text.locators import spoken_names

_POINT = frozenset({"en", "ja", "ko", "zh"})
_NUMBER = re.compile(r"(?<![\w.,])(?P<sign>-?)(?P<number>\d+(?:[.,]\d+)*)")
_MINUS = {"de": "minus", "fr": "moins", "es": "menos", "it": "meno", "pt": "menos", "ru": "минус"}
_ENGLISH = (
    spoken_dates,
    spoken_abbreviations,
    spoken_phones,
    spoken_times,
    spoken_amounts,
    spoken_symbols,
    spoken_slashes,
    spoken_numbers,
    spoken_capitals,
)
"""The steps, in an order in which none takes the form of a later one: a date for a telephone number, for example."""
_NUMBER_WORDS = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
)
_SENTENCE_OF_A_NUMBER = re.compile(rf"(?<=[a-z]{{2}}[.!?] )(?:{_NUMBER_WORDS}|minus)\b")
"""What a digit at the start of a sentence has become. It needs a capital: a model of sentences slurs it without."""
_NUMBER_OF_A_TITLE = re.compile(rf"(?<=[A-Za-z,] )(?:{_NUMBER_WORDS.title()})\b")
"""As in `Chapter One`, where the capital makes another word of it."""
_BLANKS = re.compile(r"[^\S\n]{2,}")


def written_out(text: str, language: str | None) -> str:
    """Write words for the numbers, dates, times, amounts, names and initialisms of a text.

    Args:
        text: with plain typography.
        language: ISO 639-1 code. English has all the forms; of other languages that `num2words` knows, numbers alone;
            of any other the text stays as it is.
    """
    if language == "en":
        return _english(text)
    if language is None or not numerals.has_words(language):
        return text
    return _NUMBER.sub(lambda found: _foreign(found, language), text)


def _english(text: str) -> str:
    text = spoken_names(text, "en")
    for step in _ENGLISH:
        text = step(text)
    text = _BLANKS.sub(" ", text.replace("$", " "))
    text = _NUMBER_OF_A_TITLE.sub(lambda it: it[0].lower(), text)
    return _SENTENCE_OF_A_NUMBER.sub(lambda it: it[0].capitalize(), text)


def _foreign(found: re.Match[str], language: str) -> str:
    group, point = (",", ".") if language in _POINT else (".", ",")
    written = found["number"]
    number = re.sub(rf"\{group}(?=\d{{3}}(?!\d))", "", written).replace(point, ".")
    if number.count(".") > 1 or "," in number or len(number) > numerals.MOST_DIGITS:
        return found[0]
    minus = f"{_MINUS.get(language, '-')} " if found["sign"] and language in _MINUS else found["sign"]
    return minus + numerals.words(number, language)
