"""Writes a text in the characters that a model was trained on; it drops what cannot be written so, and reports it."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from server.text.stretches import stretches
from server.text.typography import plain_typography
from server.text.written import written_out

MOST_DROPPED = 10
"""How many distinct dropped characters are reported."""

_REPEATED = re.compile(r"[,;:.!?](?: ?[,;:.!?])+")
_BEFORE_A_MARK = re.compile(r" (?=[,;:.!?](?:\s|$))")
_OPEN_ENDS = " ,;-/&"
_IN_BRACKETS = re.compile(r"(?<=\() | (?=\))")
_BLANKS = re.compile(r"[^\S\n]+")
_LINE_ENDS = re.compile(r" ?\n ?")


class Folded(NamedTuple):
    """The result of writing a text with an alphabet.

    Attributes:
        text: holds characters of the alphabet only, and line breaks.
        dropped: distinct characters that had no counterpart, in the order of the text, `MOST_DROPPED` at most.
    """

    text: str
    dropped: tuple[str, ...]


def adapted(
    text: str, alphabet: str, language: str | None, *, begins_line: bool = True, ends_line: bool = True
) -> Folded:
    """Write a text so that a model can read it which was trained on these characters and on no written forms.

    Args:
        text: without markup and links.
        alphabet: the characters, as `Manifest.alphabet` has them.
        language: ISO 639-1 code of the text's language.
        begins_line, ends_line: whether its first line begins with it, and its last line ends with it.
    """
    said: list[str] = []
    dropped: dict[str, None] = {}
    *others, last = stretches(text, language)
    for stretch, joint, ends in [*((*other, "\n" in other[1]) for other in others), (*last, ends_line)]:
        folded = _adapted(stretch, alphabet, language, begins_line, ends)
        dropped |= dict.fromkeys(folded.dropped)
        said += [folded.text, joint]
        begins_line = "\n" in joint
    return Folded("".join(said), tuple(dropped)[:MOST_DROPPED])


def _adapted(text: str, alphabet: str, language: str | None, begins_line: bool, ends_line: bool) -> Folded:
    folded = fold(written_out(plain_typography(text, language), language), alphabet, language)
    if not begins_line and text.lstrip()[:1].islower():  # the beginning of a text has become that of a sentence
        folded = folded._replace(text=folded.text[:1].lower() + folded.text[1:])
    return folded._replace(text=as_sentences(folded.text, alphabet, begins_line=begins_line, ends_line=ends_line))


def as_sentences(text: str, alphabet: str, *, begins_line: bool = True, ends_line: bool = True) -> str:
    """Begin every line with a capital and end it with a mark, as far as the alphabet has them.

    A heading, an item or `Dear Anna,` stands alone, as no text did that a model of sentences was trained on: it may
    take `Hello Anna,` for a beginning and go on. A first line that has begun before, and a last one that goes on, stay
    as they are at that end.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line and (number or begins_line):
            line = _begun(line, alphabet)
        if line and (number < len(lines) - 1 or ends_line):
            line = _ended(line, alphabet)
        lines[number] = line
    return "\n".join(lines)


def _begun(line: str, alphabet: str) -> str:
    start = len(line) - len(line.lstrip("\"'("))
    capital = line[start : start + 1].upper()
    return f"{line[:start]}{capital}{line[start + 1 :]}" if len(capital) == 1 and capital in alphabet else line


def _ended(line: str, alphabet: str) -> str:
    if "." not in alphabet or line.rstrip("\"')").endswith((*".!?:",)):
        return line
    body = line.rstrip("\"'")
    said = body.rstrip(_OPEN_ENDS)
    mark = "" if said.endswith((*".!?:",)) else "."
    return f"{said}{mark}{line[len(body) :]}" if said else line


def fold(text: str, alphabet: str, language: str | None = None) -> Folded:
    """Write a text with the characters of an alphabet.

    Typography becomes ASCII, letters lose accents that the alphabet lacks, any other character becomes a blank. Runs of
    marks become one: a model that was trained on sentences has never seen two in a row.

    Args:
        text: of any kind.
        alphabet: the characters, as `Manifest.alphabet` has them.
        language: ISO 639-1 code, in which the dash of a range is read.
    """
    known = frozenset(alphabet)
    dropped: dict[str, None] = {}
    text = unicodedata.normalize("NFC", text)
    if not known.issuperset(text):
        text = "".join(_folded(character, known, dropped) for character in plain_typography(text, language))
    text = _IN_BRACKETS.sub("", _LINE_ENDS.sub("\n", _BLANKS.sub(" ", text)))
    text = _BEFORE_A_MARK.sub("", text)
    return Folded(_REPEATED.sub(_one_mark, text).strip(), tuple(dropped)[:MOST_DROPPED])


def _folded(character: str, known: frozenset[str], dropped: dict[str, None]) -> str:
    if character in known or character == "\n":
        return character
    if character.isspace():
        return " "
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if unicodedata.category(part)[0] != "M")
    if plain != character and known.issuperset(plain):
        return plain
    if len(dropped) < MOST_DROPPED and character not in "_*#~|<>[]{}^=+\\@":
        dropped[character] = None
    return " "


def _one_mark(run: re.Match[str]) -> str:
    """Return the strongest of a run of marks; a comma behind an abbreviation is kept beside its point."""
    if run[0] == ".,":
        return run[0]
    return min(run[0], key=lambda mark: "?!.;:,".find(mark) % 7)
