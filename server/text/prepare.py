"""Turns a text as a person sends it into a text as it is said, in named steps that each do one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from server.text import clean, lines, speakable
from server.text.stretches import by_stretch

Step = Callable[[str], str]
"""Changes a text in time that grows linearly with its length."""

MAX_NAMED = 8
"""How many dropped characters a note names."""


class Folded(Protocol):
    """A text in the letters that a model was trained on."""

    @property
    def text(self) -> str: ...

    @property
    def dropped(self) -> str | Iterable[str]: ...


@dataclass(frozen=True)
class Steps:
    """The steps that depend on the request and on the model; None leaves one out.

    Attributes:
        lexicon: words to what is said instead.
        links: addresses to words.
        alphabet: numbers, dates and the like to words, and everything else to the model's letters.
    """

    lexicon: Step | None = None
    links: Step | None = None
    alphabet: Callable[[str], Folded] | None = None


@dataclass(frozen=True)
class Prepared:
    r"""A text as it is said.

    Attributes:
        text: paragraphs apart by `\n\n`, with no other line break and no white space at the ends.
        changed: names of the steps that changed it, in order.
        notes: what was dropped that its author may miss, in ASCII, each without a comma or semicolon.
        letters: what it was written in before it was folded to the model's alphabet.
    """

    text: str
    changed: tuple[str, ...]
    notes: tuple[str, ...]
    letters: speakable.Letters


def prepare(text: str, languages: Iterable[str], steps: Steps) -> Prepared:
    """Prepare a text without tags or markup, in time that grows linearly with its length.

    The order of the steps matters. Markup needs its line breaks, so that `tags.parse` has removed it before. A lexicon
    names words as people write them, so that it comes before the steps that write words anew.

    Args:
        text: the text, without markup.
        languages: the languages of the model, by its own names.
        steps: the steps that depend on the request and on the model.
    """
    changed: list[str] = []

    def step(name: str, change: Step | None, before: str) -> str:
        after = before if change is None else change(before)
        if after != before:
            changed.append(name)
        return after

    text = step("invisibles", clean.without_invisibles, text)
    text = step("blanks", clean.single_blanks, text)
    text = step("lines", lines.paragraphs, text)
    text = step("runs", clean.short_runs, text)  # behind the lines, over whose ends a run may go
    text = step("lexicon", steps.lexicon, text)
    found = speakable.letters(text, languages)
    text = step("links", None if steps.links is None else partial(by_stretch, steps.links), text)
    notes: tuple[str, ...] = ()
    if steps.alphabet is not None:
        folded = steps.alphabet(text)
        notes = _notes(folded.dropped)
        text = step("alphabet", lambda _: lines.paragraphs(clean.single_blanks(folded.text)), text)
    return Prepared(text, tuple(changed), notes, found)


def _notes(dropped: str | Iterable[str]) -> tuple[str, ...]:
    """Make the note for the header and the log on dropped characters: some of their code points, each once."""
    codes = list(dict.fromkeys(f"U+{ord(character):04X}" for piece in dropped for character in piece))
    if not codes:
        return ()
    more = f" and {len(codes) - MAX_NAMED} others" if len(codes) > MAX_NAMED else ""
    return (f"dropped {' '.join(codes[:MAX_NAMED])}{more}",)
