"""Writes words in capitals: initialisms are spelt, acronyms become words, and shouting becomes lower case."""

from __future__ import annotations

import re

from server.text.word_set import word_set

_WORDS = word_set(
    "AIDS ASAP ASCII BASIC COVID DARPA DOS FIFA GIF JPEG JSON LASER LEGO NAFTA NASA NASDAQ NATO OPEC OSHA PIN "
    "POTUS RADAR RAM ROM SCUBA SCOTUS SIM SONAR SWAT UNESCO UNICEF YAML ZIP"
)
"""Acronyms that are said as words."""
_SPELT = word_set(
    "AC AI AM API ATM BBC BC BMW CD CEO CFO CIA CNN CPU CSS CTO DC DIY DNA DVD ETA EU FAQ FBI FM FYI GMT GPS GPU "
    "HBO HD HDMI HIV HR HTML HTTP HTTPS IBM ID IMF IP IQ ISBN ISO IT KFC LCD LED LLM MBA ML MIT NBA NFL NHL NYC "
    "OK OS PC PDF PHD PM PR PS QA RNA RPG RV SEO SMS SQL SSD SSH TB TCP TTS TV UFO UI UK UN UPS URL US USA USB "
    "UTC UV UX VIP VR WHO WWW XML"
)
"""Initialisms that stay so in a text that is all in capitals."""
_CAPITALS = re.compile(
    r"(?<![\w.'-])(?=[A-Z]-?[A-Z])(?P<word>[A-Z]+(?:-[A-Z]+)*)"
    r"(?P<end>'(?:S|T|RE|LL|VE|M|D)\b|'?s\b)?(?![\w-]|\.[A-Za-z])"
)
_ALONE = re.compile(r"(?<![\w.'-])I'(?:M|LL|VE|D)\b")
_POINTS = re.compile(r"\b(?:[A-Z]\.){2,}(?=(?:\s+(?P<next>[^\W\d_]{1,10})|(?P<mark>[,;:)]))?)")
_STARTERS = word_set(
    "A An And As At But By For He Her His I If In It My No On Or Our She So That The Then There These They This "
    "We What When You"
)
_LETTER = re.compile(r"[^\W\d_]")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_SHORTEST_SHOUT = 5
_SPEAKABLE = re.compile(r"[^AEIOUY]{0,2}(?:[AEIOUY]{1,2}[^AEIOUY]{1,2}){1,2}[AEIOUY]?")
"""Something that can be said as a word; `HTTPS` cannot."""
_ALSO_WORDS = frozenset({"AI", "AM", "ID", "IT", "OK", "OS", "PIN", "US", "WHO", "PR"})
"""Initialisms that are words when they are shouted."""


def spoken_capitals(text: str) -> str:
    """Spell initialisms such as `FBI`, and write shouting and acronyms such as `NASA` in lower case.

    A text or sentence is shouted that has no letter in lower case and several words in capitals, or a long one: of its
    words only well-known initialisms are spelt. Elsewhere words of `_SHORTEST_SHOUT` letters and more that can be said
    are words, and all others are spelt.
    """
    text = _POINTS.sub(_pointed, text)
    shouted = _is_shouted(text)
    return _SENTENCE.sub(lambda sentence: _in_sentence(sentence[0], shouted=shouted), text)


def _is_shouted(text: str) -> bool:
    if any(letter[0].islower() for letter in _LETTER.finditer(text)):
        return False
    words = [found["word"] for found in _CAPITALS.finditer(text)]
    unknown = [word for word in words if word not in _SPELT and word not in _WORDS]
    return bool(unknown) and (len(words) > 1 or len(unknown[0]) >= _SHORTEST_SHOUT)


def _in_sentence(sentence: str, *, shouted: bool) -> str:
    shouted = shouted or _is_shouted(sentence)
    said = _CAPITALS.sub(lambda found: _said(found["word"], found["end"] or "", shouted=shouted), sentence)
    said = _ALONE.sub(lambda found: "I" + found[0][1:].lower(), said)
    if said == sentence:
        return said
    start = next(place.start() for place in _LETTER.finditer(said))
    return said[:start] + said[start].upper() + said[start + 1 :]


def _said(word: str, end: str, *, shouted: bool) -> str:
    contracted = end[1:].isupper()
    return _one(word, shouted=shouted or contracted) + end.lower()


def _one(word: str, *, shouted: bool) -> str:
    if "-" in word:
        return "-".join(_one(part, shouted=shouted) for part in word.split("-"))
    if word in _WORDS:
        return word.lower()
    if word == "OK":
        return "okay"
    if shouted:
        return " ".join(word) if word in _SPELT - _ALSO_WORDS or word == "I" else word.lower()
    is_word = len(word) >= _SHORTEST_SHOUT and word not in _SPELT and _SPEAKABLE.match(word)
    return word.lower() if is_word else " ".join(word)


def _pointed(letters: re.Match[str]) -> str:
    """`U.S.` as letters; its last point stays where it may end a sentence."""
    spelt = " ".join(letters[0].replace(".", ""))
    goes_on = letters["mark"] or (letters["next"] and letters["next"] not in _STARTERS)
    return spelt if goes_on else f"{spelt}."
