"""Replaces typographic characters by ASCII of the same meaning: quotes, dashes, ellipses, ligatures, wide forms."""

from __future__ import annotations

import re
import unicodedata

_SINGLE = "\u2018\u2019\u201a\u201b\u02bc\u02bb\u00b4\u2032\u2035`"
_DOUBLE = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u300c\u300d\u300e\u300f\u301d\u301e\u301f"
_CHARACTERS = str.maketrans(
    dict.fromkeys(_SINGLE, "'")
    | dict.fromkeys(_DOUBLE, '"')
    | {"\u2039": "'", "\u203a": "'", "\u2010": "-", "\u2011": "-", "\u2043": "-", "\u2044": "/", "\u2215": "/"}
    | {"\u2026": "...", "\u22ef": "...", "\u3001": ", ", "\u3002": ". ", "\uff0c": ", ", "\uff0e": ". ", "\uff01": "! "}
    | {"\uff1f": "? ", "\uff1b": "; ", "\uff1a": ": ", "\u30fb": " ", "\u00b7": " ", "\u2022": ", ", "\u2023": ", "}
    | {"\u00df": "ss", "\u1e9e": "SS", "\u00e6": "ae", "\u00c6": "Ae", "\u0153": "oe", "\u0152": "Oe", "\u00f8": "o"}
    | {"\u00d8": "O", "\u0142": "l", "\u0141": "L", "\u0111": "d", "\u0110": "D", "\u00f0": "d", "\u00d0": "D"}
    | {"\u00fe": "th", "\u00de": "Th", "\u0131": "i", "\u0127": "h", "\u0126": "H", "\u014b": "ng", "\u0167": "t"}
    | {"\u2122": "", "\u00ae": "", "\u00a9": "", "\u2120": "", "\u00a1": "", "\u00bf": "", "\u2030": " per mille"}
)
"""Replacements that NFKD lacks or has wrong. Marks that nobody reads aloud, such as that of trade, are dropped."""

_RANGE = re.compile(
    r"(?:(?<=[\d%\u00b0])|(?<=\d[AaPp][Mm])|(?<=\d [AaPp][Mm])|(?<=\u00b0[CF]))"
    r"\s?[\u2012-\u2015]\s?(?=[$\u20ac\u00a3]?\d)"
)
_MINUS = re.compile(r"[\u2212\ufe63\uff0d]|(?<![\w\u2012-\u2015])[\u2012\u2013](?=\d)")
_JOINING = re.compile(r"(?<=[^\W\d_])\u2013(?=[^\W\d_])")
_LONGEST_LIGATURE = 4
"""The most characters of a replacement; some Arabic ligatures stand for a whole sentence."""
_BLANKS = re.compile(r"[^\S\n]+")
_DASH = re.compile(r" ?(?:[\u2012-\u2015\u2e3a\u2e3b]+|(?<!-)-{2,}|(?<=\s)-(?=\s)) ?")
_ELLIPSIS = re.compile(r" ?\.(?: ?\.)+ ?(?P<next>[\"']*(?:I\b|\S?))")
_TO = {"en": "to", "de": "bis", "fr": "\u00e0", "es": "a", "it": "a", "pt": "a", "ru": "\u0434\u043e"}


def plain_typography(text: str, language: str | None) -> str:
    """Quotes as `'` and `"`, dashes and ellipses as pauses, a range's dash as `to`, ligatures and full-width forms
    as the letters that they stand for.

    Accents, signs of money and other symbols stay: they may yet be read.
    """
    text = _BLANKS.sub(" ", text)
    text = _RANGE.sub(f" {_TO[language]} " if language in _TO else "-", text)
    text = _JOINING.sub("-", _MINUS.sub("-", text))
    text = _ELLIPSIS.sub(_after_ellipsis, _DASH.sub(_dash, text).translate(_CHARACTERS))
    return unicodedata.normalize("NFC", "".join(map(_compatible, text)))


def _compatible(character: str) -> str:
    """A ligature's letters, a full-width form's narrow one; a fraction or power stays, to be read."""
    if character < "\u0100" or character in "\u2070\u2074" or unicodedata.category(character) == "No":
        return character
    plain = unicodedata.normalize("NFKC", character)
    return plain if len(plain) <= _LONGEST_LIGATURE else character


def _dash(dash: re.Match[str]) -> str:
    text, start, end = dash.string, dash.start(), dash.end()
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    if before.isdigit() and after.isdigit():
        return dash[0]  # a subtraction
    if before in "\n([\"'" or after in "\n)]":
        return ""
    if after in ".,;:!?":
        return ""
    return " " if before in ".,;:!?" else ", "


def _after_ellipsis(ellipsis: re.Match[str]) -> str:
    after = ellipsis["next"]
    first = after.lstrip("\"'")
    if not first or first in ")]":
        return f".{after}"
    if first in ",;:!?":
        return after
    return f"{', ' if first.islower() or first == 'I' else '. '}{after}"
