"""Captions: which part of a request's text is heard from when to when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from server.speech.timeline import TimedPiece, Timeline
from server.text.alignment import Alignment
from server.text.lines import PARAGRAPH
from server.text.tags import TAG

_NOT_BLANK = re.compile(r"\S")


@dataclass(frozen=True)
class Caption:
    """What is heard for a while.

    Attributes:
        text: as it was written, without markup and with single blanks; empty for a pause.
        start_char: its first character in the request's text, in code points.
        end_char: the character behind its last one.
        start_time: seconds from the first sample that is heard.
        end_time: likewise; None while it is heard.
    """

    text: str
    start_char: int
    end_char: int
    start_time: float
    end_time: float | None

    @property
    def pause(self) -> bool:
        """Whether nothing is said."""
        return not self.text

    def told(self) -> dict[str, Any]:
        """Its fields, as JSON has them; `pause` is there where it is true."""
        return {**vars(self), **({"pause": True} if self.pause else {})}


class Script:
    """What is said of a text, and where each part of it stands in the text that was written.

    Args:
        written: the text of the request.
        untagged: the same, as `tags.without_tags` makes it.
        plain: the same without markup.
        passages: what is said of it, in order; empty for a silence.
    """

    def __init__(self, written: str, untagged: str, plain: str, passages: Sequence[str]) -> None:
        self.said = f" {TAG} ".join(passages).replace(PARAGRAPH, " ")
        self._written, self._bare, self._plain = written, untagged.replace(TAG, " "), plain.replace(TAG, " ")
        self._in_bare = Alignment(self.said, untagged)
        self._in_plain = self._in_bare if plain == untagged else Alignment(self.said, plain)

    def part(self, start: int, end: int) -> tuple[str, int, int]:
        """A part of what is said as it was written, and where that begins and ends in the text of the request."""
        first, last = self._in_plain.place(start), self._in_plain.place(end)
        text = " ".join(self._plain[first:last].split()) or self.said[start:end].strip(f" {TAG}")
        first, last = self._in_bare.place(start), self._in_bare.place(end)
        return text, *_stripped(self._bare[first:last], first)

    def silence(self, place: int, start: int) -> tuple[int, int]:
        """Where the tags of a silence begin and end, which stands at a place of what is said.

        Args:
            place: in what is said.
            start: where the piece before the silence ends in the text of the request.
        """
        found = _NOT_BLANK.search(self._bare, max(start, self._in_bare.place(place)))
        return _stripped(self._written[start : found.start() if found else len(self._bare)], start)


def _stripped(part: str, start: int) -> tuple[int, int]:
    """Where a part of a text, which begins at `start`, begins and ends without the white space at its ends."""
    kept = part.strip()
    start += part.find(kept)
    return start, start + len(kept)


class Captions:
    """The captions of a reading, in order, as it goes on.

    Args:
        script: of what is read.
        timeline: of the reading.
    """

    def __init__(self, script: Script, timeline: Timeline) -> None:
        self._script, self._timeline = script, timeline
        self._placed: list[tuple[str, int, int]] = []
        """Text and range of each piece that has begun."""
        self._said = self._end = 0
        """Where the last piece of speech ends in what is said, and the last piece in the text of the request."""
        self._told = 0
        self._begun = False

    def all(self) -> list[Caption]:
        """Captions of all pieces that have begun."""
        return [self._caption(number, piece) for number, piece in enumerate(self._timeline.pieces)]

    def due(self) -> Iterator[Caption]:
        """Captions that have not been given out: each when its piece begins, and again when that has ended."""
        pieces = self._timeline.pieces
        while self._told < len(pieces):
            piece = pieces[self._told]
            if not self._begun:
                self._begun = True
                yield self._caption(self._told, piece, begins=True)
            if piece.end is None:
                return
            yield self._caption(self._told, piece)
            self._told, self._begun = self._told + 1, False

    def _caption(self, number: int, piece: TimedPiece, *, begins: bool = False) -> Caption:
        while len(self._placed) <= number:
            self._placed.append(self._place(self._timeline.pieces[len(self._placed)]))
        text, start, end = self._placed[number]
        ended = None if begins or piece.end is None else self._seconds(piece.end)
        return Caption(text, start, end, self._seconds(piece.start), ended)

    def _seconds(self, samples: int) -> float:
        """To the microsecond, of which a sample at 24 kHz has 41."""
        return round(samples / self._timeline.sample_rate, 6)

    def _place(self, piece: TimedPiece) -> tuple[str, int, int]:
        if piece.kind == "join":
            return "", self._end, self._end
        if piece.kind == "silence":
            text, (start, end) = "", self._script.silence(self._said, self._end)
        else:
            before, place = self._said, self._script.said.index(piece.text, self._said)
            self._said = place + len(piece.text)
            text, start, end = self._script.part(before, self._said)
        start = max(start, self._end)  # places may be estimates
        self._end = max(start, end)
        return text, start, self._end
