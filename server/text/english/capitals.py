"""Words in capitals: initialisms are spelt, acronyms are words, and shouting is lower case."""

from __future__ import annotations

import re

_WORDS = frozenset(
    "AIDS ASAP ASCII BASIC COVID DARPA DOS FIFA GIF HIV-AIDS JPEG JSON LASER LEGO NAFTA NAND NASA NASDAQ NATO NAVY NOR OPEC OSHA PIN POTUS RADAR "
    "RAM ROM SCUBA SCOTUS SIM SONAR SWAT UNESCO UNICEF VIP-ER YAML ZIP".split()
)  # fmt: skip
_SPELT = frozenset(
    "AC AI AM API ATM BBC BC BMW CD CEO CFO CIA CNN CPU CSS CTO DC DIY DNA DVD ETA EU FAQ FBI FM FYI GMT GPS GPU HBO HD HDMI HIV HR HTML "
    "HTTP HTTPS IBM ID IMF IP IQ ISBN ISO IT KFC LCD LED LLM MBA ML MIT NBA NFL NHL NYC OK OS PC PDF PHD PM PR PS QA RNA RPG RV SEO "
    "SMS SQL SSD SSH TB TCP TTS TV UFO UI UK UN UPS URL US USA USB UTC UV UX VIP VR WHO WWW XML".split()
)  # fmt: skip
"""Initialisms that stay so in a text that is all in capitals."""
_ROMAN = re.compile(r"[IVXLC]+")
_CAPITALS = re.compile(r"(?<![\w.'])(?P<word>[A-Z]{2,}(?:-[A-Z]{2,})*)(?P<end>'?s)?(?![\w]|\.[A-Za-z])")
_POINTS = re.compile(r"\b(?:[A-Z]\.){2,}(?=(?P<more>\s+[a-z])?)")
_LETTER = re.compile(r"[^\W\d_]")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_SHORTEST_SHOUT = 5
"""Letters from which on a word in capitals is a word; shorter ones without a vowel pattern are spelt."""
_SPEAKABLE = re.compile(r"[^AEIOUY]{0,2}(?:[AEIOUY]{1,2}[^AEIOUY]{1,2}){1,2}[AEIOUY]?")


def spoken_capitals(text: str) -> str:
    """Spell initialisms such as `FBI`, and write shouting and acronyms such as `NASA` in lower case.

    A sentence with two words in capitals and none in lower case is shouted: of its words only well-known initialisms
    are spelt. Elsewhere words of `_SHORTEST_SHOUT` letters and more are words, and shorter ones are spelt.
    """
    text = _POINTS.sub(_pointed, text)
    return _SENTENCE.sub(lambda sentence: _in_sentence(sentence[0]), text)


def _in_sentence(sentence: str) -> str:
    capitals = [found["word"] for found in _CAPITALS.finditer(sentence)]
    if not capitals:
        return sentence
    rest = _CAPITALS.sub("", sentence)
    lower = any(letter[0].islower() for letter in _LETTER.finditer(rest))
    unknown = [word for word in capitals if word not in _SPELT]
    shouted = not lower and bool(unknown) and (len(capitals) > 1 or len(unknown[0]) >= _SHORTEST_SHOUT)
    if not shouted:
        return _CAPITALS.sub(lambda found: _one(found["word"], shouted=False) + (found["end"] or ""), sentence)
    said = _CAPITALS.sub(lambda found: _one(found["word"], shouted=True) + (found["end"] or ""), sentence)
    said = re.sub(r"'[A-Z]+\b", lambda found: found[0].lower(), said)
    start = next((place.start() for place in _LETTER.finditer(said)), 0)
    return said[:start] + said[start : start + 1].upper() + said[start + 1 :]


def _one(word: str, *, shouted: bool) -> str:
    if "-" in word:
        return "-".join(_one(part, shouted=shouted) for part in word.split("-"))
    if word in _WORDS:
        return word.capitalize() if word in ("NASA", "NATO", "UNESCO", "UNICEF") else word.lower()
    if shouted:
        return " ".join(word) if word in _SPELT and word not in ("AM", "IT", "US", "WHO", "OK", "ID") else word.lower()
    if len(word) >= _SHORTEST_SHOUT and word not in _SPELT and _SPEAKABLE.search(word):
        return word.lower()
    if word == "OK":
        return "okay"
    return " ".join(word)


def _pointed(letters: re.Match[str]) -> str:
    """`U.S.` as letters; its last point stays where it may end a sentence."""
    spelt = " ".join(letters[0].replace(".", ""))
    return spelt if letters["more"] else f"{spelt}."
