"""Silence tags: `[0.5s]` as Kokoro Web has it, `[pause:0.5s]`, and SSML's `<break time="500ms"/>`."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

MAX_SILENCE_SECONDS = 300
"""In one request: about as long as speaking the longest text allowed by default takes, so at most half is silence."""

_SECONDS = r"[0-9]+(?:\.[0-9]+)?"
_TAG = re.compile(
    rf"\[(?:pause:)?(?P<seconds>{_SECONDS})s\]"
    rf"|<break\s+time\s*=\s*(?P<quote>[\"'])\s*(?P<time>{_SECONDS})(?P<unit>m?s)\s*(?P=quote)\s*/>"
)


class TagError(ValueError):
    """Tags that ask for more than they may; the message says so to the person who wrote them."""


@dataclass(frozen=True)
class Spoken:
    """Text without tags, exactly as it stood; holds more than punctuation if there were tags beside it."""

    text: str


@dataclass(frozen=True)
class Silence:
    """A pause of one or more adjacent tags."""

    seconds: Decimal


Part = Spoken | Silence


def parse(text: str) -> list[Part]:
    """Split a text at its tags, in linear time; what is not written exactly as a tag is text.

    Between two parts of speech lies always one silence, and the other way round. White space and punctuation that
    stand alone beside tags say nothing and are dropped.

    Raises:
        TagError: all silences together are longer than `MAX_SILENCE_SECONDS`.
    """
    parts: list[Part] = []
    total = Decimal(0)
    end = 0
    for tag in _TAG.finditer(text):
        _append_text(parts, text[end : tag.start()])
        seconds = Decimal(tag["seconds"] or tag["time"])
        if tag["unit"] == "ms":
            seconds /= 1000
        if seconds > MAX_SILENCE_SECONDS - total:
            raise TagError(f"the silence tags add up to more than {MAX_SILENCE_SECONDS} seconds; make them shorter")
        total += seconds
        if parts and isinstance(last := parts[-1], Silence):
            parts[-1] = Silence(last.seconds + seconds)
        else:
            parts.append(Silence(seconds))
        end = tag.end()
    if not end:
        return [Spoken(text)]
    _append_text(parts, text[end:])
    return parts


def samples(seconds: Decimal, sample_rate: int) -> int:
    """The length of a silence, to the nearest sample."""
    return int((seconds * sample_rate).to_integral_value(ROUND_HALF_UP))


def _append_text(parts: list[Part], text: str) -> None:
    if any(unicodedata.category(letter)[0] not in "CPZ" for letter in text):
        parts.append(Spoken(text))
