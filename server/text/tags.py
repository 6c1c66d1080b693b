"""Reads the tags in a text: silences and changes of the voice.

Silences are `[0.5s]` as Kokoro Web has it, also in words (`[pause 1s]`, `[pause: 500 ms]`) and in milliseconds, and
SSML's `<break>` in all its forms. `[voice:NAME]`, as Kokoro-FastAPI has it, changes the voice from there on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import regex

from server.text.matching import matches, replace
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
_VOICE = r"\[\s*+voice\s*+:\s*+(?P<voice>[^\[\]\s][^\[\]\r\n]{0,255}+)\]"
_TAG = regex.compile(
    r"\[\s*+(?:(?:pause|silence|silent|break)(?:\s*+[:=]\s*+|\s++))?"
    rf"(?P<seconds>{_SECONDS})\s*+(?P<unit>{_UNIT})\s*+\]"
    r"|(?P<pause>\[\s*+pause\s*+\])"
    rf"|{_VOICE}"
    r"|<break(?P<attributes>(?:\s++[a-z:]++\s*+=\s*+(?:\"[^\"<>]*+\"|'[^'<>]*+'))*+)\s*+(?:/>|>(?:\s*+</break\s*+>)?)",
    regex.IGNORECASE,
)
_VOICE_TAG = regex.compile(_VOICE, regex.IGNORECASE)
_LONGEST = 300
"""Characters of a tag that has begun for which its end is waited for."""
_ATTRIBUTE = regex.compile(
    r"\s(?P<name>[a-z:]+)\s*=\s*(?P<quote>[\"'])\s*(?P<value>[^\"'<>]*?)\s*(?P=quote)", regex.IGNORECASE
)
_TIME = regex.compile(rf"\+?(?P<seconds>{_SECONDS})(?P<unit>m?s)", regex.IGNORECASE)


_OPEN, _CLOSE = "\ufdee", "\ufdef"
"""They enclose a tag's number while markup is read: noncharacters, which Unicode leaves to programs."""
TAG = _CLOSE
"""Stands for a tag in the text that `without_tags` makes."""
_OF_MARKS = regex.compile(f"[{_OPEN}{_CLOSE}]")
_MARK = regex.compile(f"{_OPEN}(?P<number>[0-9]++){_CLOSE}")


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
    left = Decimal(MAX_SILENCE_SECONDS)
    end = 0
    text, tags = _marked(text)
    if markup is not None:
        text = markup(text)
    for mark in matches(_MARK, text):
        parts.append(Spoken(text[end : mark.start()], voice))
        end = mark.end()
        tag = tags[int(mark["number"])]
        if isinstance(tag, str):
            voice = tag
            continue
        left = _less(left, tag)
        parts.append(Silence(tag))
    if not end:
        return [Spoken(text)]
    return _tidy([*parts, Spoken(text[end:], voice)])


def says_something(text: str) -> bool:
    """Whether a text has something to say, or a silence: a voice's name in a tag is not said."""
    return is_speakable(replace(_VOICE_TAG, "", text))


def without_tags(text: str) -> str:
    """The text, as long as it was, with `TAG` and blanks in place of the characters of each tag."""
    unmarked = replace(_OF_MARKS, " ", text)
    return replace(_TAG, lambda tag: tag[0] if _meaning(tag) is None else TAG.ljust(len(tag[0])), unmarked)


def last_voice(text: str) -> str | None:
    """The name in the last voice tag of a text, which holds for what follows; None where there is none."""
    named = deque(matches(_VOICE_TAG, text), maxlen=1)
    return named[0]["voice"].strip() if named else None


class TagStream:
    """Splits a text that arrives over time at its tags, as `parse` does the whole of it.

    Where `parse` would raise a `TagError`, that stands among the parts, behind those that come before it in the text.
    """

    def __init__(self) -> None:
        self._voice: str | None = None
        """The name in the last voice tag."""
        self._held = ""
        """What may be the beginning of a tag."""
        self._left = Decimal(MAX_SILENCE_SECONDS)

    def feed(self, text: str) -> list[Part | TagError]:
        """Take in more of the text, cut off anywhere; returns the parts that have come, speech of any length."""
        text, self._held = self._held + text, ""
        for place in range(max(0, len(text) - _LONGEST), len(text)):
            if text[place] in "[<" and _may_go_on(text, place):
                text, self._held = text[:place], text[place:]
                break
        return self._split(text)

    def end(self) -> list[Part | TagError]:
        """The text is over: returns the parts that are left."""
        text, self._held = self._held, ""
        return self._split(text)

    def _split(self, text: str) -> list[Part | TagError]:
        parts: list[Part | TagError] = []
        end = 0
        for tag in matches(_TAG, text):
            found = _meaning(tag)
            if found is None:
                continue
            parts.append(Spoken(text[end : tag.start()], self._voice))
            end = tag.end()
            if isinstance(found, str):
                self._voice = found
                continue
            try:
                self._left = _less(self._left, found)
            except TagError as error:
                parts.append(error)
            else:
                parts.append(Silence(found))
        parts.append(Spoken(text[end:], self._voice))
        return [part for part in parts if not isinstance(part, Spoken) or part.text]


def _may_go_on(text: str, place: int) -> bool:
    """Whether what stands from here on may be a tag that has not ended."""
    found = _TAG.fullmatch(text, place, partial=True)
    # `</break>` may follow `<break>`, which is whole without it.
    return found is not None and (
        found.partial or (text[place] == "<" and not text.endswith("/>") and "</" not in found[0])
    )


def _less(left: Decimal, silence: Decimal) -> Decimal:
    """Seconds of silence that are left of those that are allowed.

    Raises:
        TagError: none are.
    """
    if silence > left:
        raise TagError(f"the silence tags add up to more than {MAX_SILENCE_SECONDS} seconds; make them shorter")
    return left - silence


def _meaning(tag: regex.Match[str]) -> Decimal | str | None:
    """Seconds of silence, or a voice; None if it is a break whose time is malformed."""
    return tag["voice"].strip() if tag["voice"] else _seconds(tag)


def _marked(text: str) -> tuple[str, list[Decimal | str]]:
    """Replace each tag by a mark, and list what the tags are: seconds of silence, or a voice."""
    tags: list[Decimal | str] = []

    def mark(tag: regex.Match[str]) -> str:
        found = _meaning(tag)
        if found is None:
            return tag[0]
        tags.append(found)
        return f"{_OPEN}{len(tags) - 1}{_CLOSE}"

    return replace(_TAG, mark, replace(_OF_MARKS, "", text)), tags


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


def _seconds(tag: regex.Match[str]) -> Decimal | None:
    """Read the length of a silence; None if it is a break whose time is malformed."""
    if tag["seconds"]:
        return _length(tag["seconds"], tag["unit"])
    if tag["pause"]:
        return STRENGTHS["medium"]
    attributes = {found["name"].lower(): found["value"] for found in matches(_ATTRIBUTE, tag["attributes"])}
    if "time" in attributes:
        time = _TIME.fullmatch(attributes["time"])
        return _length(time["seconds"], time["unit"]) if time else None
    return STRENGTHS.get(attributes.get("strength", "medium").lower())


def _length(number: str, unit: str) -> Decimal:
    seconds = Decimal(number.replace(",", "."))
    return seconds / 1000 if unit.lower().startswith("m") else seconds
