"""Writes telephone numbers, ordinals, Roman numerals, ranges, arithmetic and all other numbers as words."""

from __future__ import annotations

import re
import unicodedata

from server.text.numerals import digits, words

_PHONE = re.compile(
    r"(?<![\w.,$-])(?:\+(?P<country>\d{1,3})[ .-]?|1[ .-](?=\(?\d{3}\)?[ .-]\d{3}[ .-]))?"
    r"(?:\((?P<area>\d{2,4})\) ?|(?P<code>\d{3})[ .-])?"
    r"(?P<first>\d{3})[ .-](?P<last>\d{4})(?![\w-]|[.,]\d)"
)
_INTERNATIONAL = re.compile(r"(?<![\w.,$-])\+(?:\d{7,15}|\d{1,3}(?:[ .-]\(?\d{1,5}\)?){2,6})(?!\w)")
_LONG = re.compile(
    r"(?<![\w.,])(?:\d{4}[ -]){2,4}\d{1,4}(?![\w-])|(?<![\d.,])\d{7,}(?![\d,]|\.\d)|(?<![\d.,:/])0\d+(?![\d,]|[.:]\d)"
)
_ORDINAL = re.compile(r"(?<![\w.,])(?P<number>\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b")
_ROMAN = r"(?P<roman>X{0,3}(?:IX|IV|V?I{1,3}|V)|X{1,3})\b(?!')"
_ROMAN_PART = re.compile(
    r"\b(?P<what>World War|Chapter|Part|Act|Scene|Volume|Vol\.|Book|Section|Phase|"
    r"Type|Class|Level|Title|Appendix|Rocky|Final Fantasy|Super Bowl) " + _ROMAN
)
_ROMAN_NAME = re.compile(
    r"\b(?P<what>Henry|Elizabeth|Louis|Charles|George|Edward|Richard|James|William|"
    r"Philip|Frederick|Catherine|Nicholas|Alexander|Ivan|Napoleon|Pius|Benedict|John Paul|"
    r"Leo|Francis|Peter|Mary) " + _ROMAN
)
_RANGE = re.compile(r"(?<![\w.,/-])(?P<low>\d[\d,]*(?:\.\d+)?) ?- ?(?=\d[\d,]*(?:\.\d+)?(?!\d|[-/]\d|\w*-\w))")
_RATIO = re.compile(r"(?<![\w.,:])(?P<one>\d{1,3}):(?=\d(?![\d:]))")
_SUBTRACTION = re.compile(r"(?<=\d) - (?=\d)")
_GREEK = re.compile("(?<![\u0370-\u03ff])[\u0391-\u03a9\u03b1-\u03c9](?![\u0370-\u03ff])")
_HASH = re.compile(r"(?<!\w)#(?=\d)")
_NUMERO = re.compile(r"\bNo\. ?(?=\d)|\u2116 ?(?=\d)")
_BESIDE_LETTERS = re.compile(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")
_POINTS = re.compile(r"(?<![\w.])\d{1,9}(?:\.\d{1,9}){2,}(?![\w.]*\d)")
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.,)])-|(?<=\s)-)?(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\w)\.\d+)"
)
_SIGNS = {
    "\u00b1": " plus or minus ",
    "\u00d7": " times ",
    "\u00f7": " divided by ",
    "\u2248": " about ",
    "\u2260": " is not ",
    "\u2264": " at most ",
    "\u2265": " at least ",
    "\u221e": " infinity ",
    "\u221a": " root of ",
    "\u2192": " to ",
    "\u00b5": " micro",
}
_SYMBOL = re.compile("[" + "".join(_SIGNS) + "]")
_BETWEEN = (
    (re.compile(r"(?<=\w) ?[-=]> ?(?=\w)"), " to "),
    (re.compile(r"(?<=\w) ?<= ?(?=[\d-])"), " is at most "),
    (re.compile(r"(?<=\w) ?>= ?(?=[\d-])"), " is at least "),
    (re.compile(r"(?<!\S)<= ?(?=[$\d-])"), "at most "),
    (re.compile(r"(?<!\S)>= ?(?=[$\d-])"), "at least "),
    (re.compile(r"(?<!\S)<(?=[$\d-])"), "less than "),
    (re.compile(r"(?<!\S)>(?=[$\d-])"), "more than "),
    (re.compile(r"(?<=[\w)])\^(?=[\d-])"), " to the power of "),
    (re.compile(r"(?<=[\w)]) ?={1,3} ?(?=[\w(-])"), " equals "),
    (re.compile(r"(?<=[\d)]) ?\+ ?(?=[\w(])|(?<=\w) \+ (?=\w)"), " plus "),
    (re.compile(r"(?<=[\d)]) ?\* ?(?=[\d(])"), " times "),
    (re.compile(r"(?<=\d) / (?=\d)"), " divided by "),
    (re.compile(r"(?<=\w) ?< ?(?=[\d-])"), " is less than "),
    (re.compile(r"(?<=\w) ?> ?(?=[\d-])"), " is more than "),
    (re.compile(r"\bC\+\+"), "C plus plus"),
    (re.compile(r"\b(?P<note>[CF])#(?!\w)"), r"\g<note> sharp"),
    (re.compile(r"(?<!\w)\+(?=\d)"), "plus "),
    (re.compile(r"(?<!\w)[~\u223c](?=[$\u20ac\u00a3]?\d)"), "about "),
    (re.compile(r"(?<=\w) ?& ?(?=\w)"), " and "),
    (re.compile(r"(?<=\w) @ ?(?=\w)"), " at "),
)
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10}


def spoken_phones(text: str) -> str:
    """Telephone, card and other long numbers digit by digit, their groups as pauses."""
    text = _PHONE.sub(_groups, _INTERNATIONAL.sub(_groups, text))
    return _LONG.sub(_groups, text)


def spoken_symbols(text: str) -> str:
    """Signs of arithmetic, `#2`, `C++` and ranges with words."""
    for pattern, said in _BETWEEN:
        text = pattern.sub(said, text)
    text = _GREEK.sub(lambda it: f" {unicodedata.name(it[0]).split()[-1].lower()} ", text)
    text = _SYMBOL.sub(lambda it: _SIGNS[it[0]], text)
    text = _NUMERO.sub("number ", _HASH.sub("number ", text))
    text = _RATIO.sub(r"\g<one> to ", _SUBTRACTION.sub(" minus ", text))
    return _RANGE.sub(r"\g<low> to ", text)


def spoken_numbers(text: str) -> str:
    """Ordinals, Roman numerals where they can be nothing else, and all numbers that are left, as words."""
    text = _ROMAN_PART.sub(lambda it: f"{it['what']} {words(str(_roman(it['roman'])))}", text)
    text = _ROMAN_NAME.sub(lambda it: f"{it['what']} the {words(str(_roman(it['roman'])), kind='ordinal')}", text)
    text = _ORDINAL.sub(lambda it: words(it["number"].replace(",", ""), kind="ordinal"), text)
    text = _POINTS.sub(lambda it: it[0].replace(".", " point "), text)
    return _BESIDE_LETTERS.sub(" ", _NUMBER.sub(_number, _BESIDE_LETTERS.sub(" ", text)))


def _groups(number: re.Match[str]) -> str:
    plus = "plus " if number[0].startswith("+") else ""
    return plus + ", ".join(digits(group) for group in re.findall(r"\d+", number[0]))


def _number(number: re.Match[str]) -> str:
    said = words(number["number"].replace(",", ""))
    return f"minus {said}" if number["sign"] else said


def _roman(numeral: str) -> int:
    values = [_ROMAN_VALUES[letter] for letter in numeral]
    return sum(-one if one < next_ else one for one, next_ in zip(values, [*values[1:], 0], strict=True))
