"""Reads the tags in a text: silences and changes of the voice.

Silences are `[0.5s]` as Kokoro Web has it, also in words (`[pause 1s]`, `[pause: 500 ms]`) and in milliseconds, and
SSML's `<break>` in all its forms. `[voice:NAME]`, as Kokoro-FastAPI has it, changes the voice from there on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from server.text.speakable import is_speakable

MAX_SILENCE_SECONDS = 300
"""The most seconds of silence in one request."""

STRENGTHS = {
    "none": Decimal("0"),
    "x-weak": Decimal("0.25"),
    "weak": Decimal("0.5"),
    "medium": Decimal("0.75"),
    "strong": Decimal("1"),
    "x-strong": Decimal("1.25"),
}
"""Seconds of SSML's `strength`, as Azure's speech service has them; `medium` is what a break has without attributes,
and what `[pause]` is."""

_SECONDS = r"(?:[0-9]++(?:[.,][0-9]++)?|[.,][0-9]++)"
_UNIT = r"(?:ms(?:ecs?)?|milliseconds?|s(?:ecs?)?|seconds?)"
_TAG = re.compile(
    r"\[\s*+(?:(?:pause|silence|silent|break)(?:\s*+[:=]\s*+|\s++))?"
    rf"(?P<seconds>{_SECONDS})\s*+(?P<unit>{_UNIT})\s*+\]"
    r"|(?P<pause>\[\s*+pause\s*+\])"
    r"|\[\s*+voice\s*+:\s*+(?P<voice>[^\[\]\s][^\[\]\r\n]{0,255}+)\]"
    r"|<break(?P<attributes>(?:\s++[a-z:]++\s*+=\s*+(?:\"[^\"<>]*+\"|'[^'<>]*+'))*+)\s*+(?:/>|>(?:\s*+</break\s*+>)?)",
    re.IGNORECASE,
)
_ATTRIBUTE = re.compile(
    r"\s(?P<name>[a-z:]+)\s*=\s*(?P<quote>[\"'])\s*(?P<value>[^\"'<>]*?)\s*(?P=quote)", re.IGNORECASE
)
_TIME = re.compile(rf"\+?(?P<seconds>{_SECONDS})(?P<unit>m?s)", re.IGNORECASE)


_OPEN, _CLOSE = "\ufdee", "\ufdef"
"""They enclose a tag's number while markup is read: noncharacters, which Unicode leaves to programs."""
_OF_MARKS = re.compile(f"[{_OPEN}{_CLOSE}]")
_MARK = re.compile(f"{_OPEN}(?P<number>[0-9]++){_CLOSE}")


class TagError(ValueError):
    """The tags ask for more than is allowed; the message is for the person who wrote them."""


@dataclass(frozen=True)
class Spoken:
    """Text without tags, exactly as it was written; it has a letter or digit if there were tags beside it.

    Attributes:
        text: what is said.
        voice: the name in the last voice tag before it; None where there is none.
    """

    text: str
    voice: str | None = None


@dataclass(frozen=True)
class Silence:
    """A pause, made of one tag or of several adjacent ones."""

    seconds: Decimal


Part = Spoken | Silence


def parse(text: str, markup: Callable[[str], str] | None = None) -> list[Part]:
    """Split a text at its tags, in linear time; what is not exactly a tag is text.

    Two parts of speech side by side have different voices; two silences are one. White space and symbols that stand
    alone beside tags say nothing and are dropped.

    Args:
        text: the text as it was sent.
        markup: what makes plain text of Markdown or HTML. It is given the whole text, with a mark for each tag, since
            it would take tags for markup, and a part alone may hold half an element; a tag may go with what it drops.

    Raises:
        TagError: all silences together are longer than `MAX_SILENCE_SECONDS`.
    """
    parts: list[Part] = []
    voice: str | None = None
    total = Decimal(0)
    end = 0
    text, tags = _marked(text)
    if markup is not None:
        text = markup(text)
    for mark in _MARK.finditer(text):
        parts.append(Spoken(text[end : mark.start()], voice))
        end = mark.end()
        tag = tags[int(mark["number"])]
        if isinstance(tag, str):
            voice = tag
            continue
        if tag > MAX_SILENCE_SECONDS - total:
            raise TagError(f"the silence tags add up to more than {MAX_SILENCE_SECONDS} seconds; make them shorter")
        total += tag
        parts.append(Silence(tag))
    if not end:
        return [Spoken(text)]
    return _tidy([*parts, Spoken(text[end:], voice)])


def _marked(text: str) -> tuple[str, list[Decimal | str]]:
    """Replace each tag by a mark, and list what the tags are: seconds of silence, or a voice."""
    tags: list[Decimal | str] = []

    def mark(tag: re.Match[str]) -> str:
        found = tag["voice"].strip() if tag["voice"] else _seconds(tag)
        if found is None:
            return tag[0]
        tags.append(found)
        return f"{_OPEN}{len(tags) - 1}{_CLOSE}"

    return _TAG.sub(mark, _OF_MARKS.sub("", text)), tags


def _tidy(parts: Iterable[Part]) -> list[Part]:
    """Drop speech without a letter or digit, and unite adjacent parts of the same kind and voice."""
    kept: list[Part] = []
    for part in parts:
        last = kept[-1] if kept else None
        if isinstance(part, Spoken) and not is_speakable(part.text):
            continue
        if isinstance(part, Silence) and isinstance(last, Silence):
            kept[-1] = Silence(last.seconds + part.seconds)
        elif isinstance(part, Spoken) and isinstance(last, Spoken) and part.voice == last.voice:
            kept[-1] = Spoken(last.text + part.text, part.voice)
        else:
            kept.append(part)
    return kept


def samples(seconds: Decimal, sample_rate: int) -> int:
    """Return the length of a silence in samples, to the nearest one."""
    return int((seconds * sample_rate).to_integral_value(ROUND_HALF_UP))


def _seconds(tag: re.Match[str]) -> Decimal | None:
    """Read the length of a silence; None if it is a break whose time is malformed."""
    if tag["seconds"]:
        return _length(tag["seconds"], tag["unit"])
    if tag["pause"]:
        return STRENGTHS["medium"]
    attributes = {found["name"].lower(): found["value"] for found in _ATTRIBUTE.finditer(tag["attributes"])}
    if "time" in attributes:
        time = _TIME.fullmatch(attributes["time"])
        return _length(time["seconds"], time["unit"]) if time else None
    return STRENGTHS.get(attributes.get("strength", "medium").lower())


def _length(number: str, unit: str) -> Decimal:
    seconds = Decimal(number.replace(",", "."))
    return seconds / 1000 if unit.lower().startswith("m") else seconds
