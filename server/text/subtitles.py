"""Writes captions as files that players read: SubRip, and WebVTT (https://www.w3.org/TR/webvtt1/)."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from typing import NamedTuple

LINE_CHARS = 42
"""The most characters of a line, by the BBC's and Netflix's guides; a longer text has two lines of about one length."""
_ARROW = "-->"


class Cue(NamedTuple):
    """A text, and the seconds from which and to which it is shown."""

    start: float
    end: float
    text: str


def srt(cues: Iterable[Cue]) -> str:
    """A file in SubRip's format, whose texts have no escapes: what looks like a tag, players may take for one."""
    return "\n".join(
        f"{number}\n{_time(cue.start, ',')} {_ARROW} {_time(cue.end, ',')}\n{_lines(cue.text).replace(_ARROW, '->')}\n"
        for number, cue in enumerate(cues, 1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """A file in WebVTT's format."""
    blocks = (
        f"{_time(cue.start, '.')} {_ARROW} {_time(cue.end, '.')}\n{html.escape(_lines(cue.text), quote=False)}\n"
        for cue in cues
    )
    return "\n".join(("WEBVTT\n", *blocks))


FORMATS: dict[str, Callable[[Iterable[Cue]], str]] = {".srt": srt, ".vtt": vtt}
"""What writes a file, by the ending of its name."""


def _time(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds; hours may have more than two digits."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _lines(text: str) -> str:
    """A text without blank lines, in one line or in two that are cut at the blank nearest to the middle."""
    text = " ".join(text.split())
    blanks = [place for place, character in enumerate(text) if character == " "]
    if len(text) <= LINE_CHARS or not blanks:
        return text
    middle = min(blanks, key=lambda place: abs(2 * place + 1 - len(text)))
    return f"{text[:middle]}\n{text[middle + 1 :]}"
