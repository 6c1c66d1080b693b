r"""Decides which line breaks end something that is said on its own, and which merely wrap a line.

A text from an e-mail, a terminal or a PDF is wrapped where its lines were full; a heading, an item and a line of `Name:
value` end where their author ended them. What comes out has paragraphs apart by `\n\n` and no other line break.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import regex

from server.text.matching import found_in

PARAGRAPH = "\n\n"

HEADING_CHARS = 60
"""The most characters of a heading."""

_LOOK_BACK = 8
ITEM_CHARS = 40
LEAST_ITEMS = 3
"""How many short lines that begin with a capital or a digit and end without a mark make a list without bullets."""

_SPEAKABLE = regex.compile(r"[\p{L}\p{N}]")
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\u3000-\u303F\u30FC\uFF00-\uFFEF"
_SHARED = r"“”‘’…—"  # marks that these scripts have in common with others
_BETWEEN_UNSPACED = regex.compile(rf"[{_UNSPACED}]\n[{_UNSPACED}{_SHARED}]|[{_SHARED}]\n[{_UNSPACED}]")
_BROKEN_WORD = regex.compile(r"\p{Ll}[-\u2010]\n\p{Ll}")
_HYPHENATED = regex.compile(r"[\p{L}\p{N}][-\u2010]\n[\p{L}\p{N}]")
_SUSPENDED = regex.compile(r"(?:and|or|to|und|oder|bis|bzw|et|ou|e|o|y|en|of)\b")
"""Words before which a hyphen at a line's end stays with its word, as in `two- and three-`."""

_BULLET = regex.compile(r"(?:[-*+•‣⁃◦▪▫●○■□➢►✓✔☐☑] +)++(?=\S)")
_NUMBER = regex.compile(r"(?:\((?P<number>\d{1,3})\)|(?P<number>\d{1,3})[.)]|(?P<letter>[a-zA-Z])\)) +(?=\S)")
_DASH = regex.compile(r"[–—―] *(?=\S)")
_LABEL = regex.compile(r"\p{Lu}[\p{L}\p{N}]*+(?:[ -][\p{L}\p{N}]++){0,3}+: ?\S")
_CHAPTER = regex.compile(
    r"第[\p{Nd}零〇一二三四五六七八九十百千兩两]{1,8}+[章节節回话話卷部篇课課](?![\p{Sentence_Terminal}，、,])"
)

_CLOSING = r"[\p{Pe}\p{Pf}\"'*_]*+"
_ENDS_SENTENCE = regex.compile(rf"[\p{{Sentence_Terminal}}…]{_CLOSING}\Z")
_ENDS_OPEN = regex.compile(r"[,;:،؛，、；：–—-]\Z")
_STARTS_LOW = regex.compile(r"[\p{P}\p{S}]*+\p{Ll}")
_STARTS_HIGH = regex.compile(r"[\p{P}\p{S}]*+[\p{Lu}\p{Lt}\p{N}]")
_CASED = regex.compile(r"[\p{Lu}\p{Ll}\p{Lt}]")
_WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}'’]*+")
_MINOR_WORDS = (
    "a an and as at but by for from in of on or the to vs with "
    "am an auf aus bei das dem den der des die ein eine für im in mit und vom von zu zum zur "
    "à au aux d de des du en et l la le les un une "
    "da das do dos e na no o os para por "
    "al con del el las los un una y "
    "alla che dei della delle di gli i il nel per "
    "в и из к на о об от по с у"
)
"""Words that are written in lower case in a title, in the languages that have capitals."""
_MINOR = frozenset(_MINOR_WORDS.split())


def paragraphs(text: str) -> str:
    r"""Join the lines of each paragraph, and keep the breaks that the author meant.

    A single line break becomes a space, or nothing between Han or Kana; a word broken by a hyphen is joined, where
    both sides are in lower case. A blank line, an item of a list, a heading and a line of `Name: value` are real cuts.
    Bullets, and lines without a letter or digit such as rules, are cuts and are not kept.

    Args:
        text: as `clean.single_blanks` returns it.
    """
    return PARAGRAPH.join(piece for block in text.split(PARAGRAPH) for piece in _pieces(block))


def ends_sentence(text: str) -> bool:
    """Whether a text ends with a period or another mark that ends a sentence, quotes and brackets behind it aside."""
    return _ENDS_SENTENCE.search(text, max(0, len(text) - _LOOK_BACK)) is not None


def _pieces(block: str) -> Iterator[str]:
    """Cut a block of lines into its paragraphs."""
    if "\n" not in block:
        if found_in(_SPEAKABLE, block):
            yield _without_bullet(block)
        return
    lines = block.split("\n")
    width = max(map(len, lines))
    parting = _is_list(lines)
    piece: list[str] = []
    before: _Line | None = None
    for text in lines:
        if not found_in(_SPEAKABLE, text):
            before = None
            continue
        line = _Line(text, before)
        if piece and (parting or before is None or _parts(before, line, width)):
            yield _joined(piece)
            piece = []
        piece.append(_without_bullet(text) if line.is_item else text)
        before = line
    if piece:
        yield _joined(piece)


def _without_bullet(text: str) -> str:
    bullet = _BULLET.match(text)
    return text[bullet.end() :] if bullet else text


def _is_list(lines: list[str]) -> bool:
    """Whether all lines look like items without bullets."""
    return len(lines) >= LEAST_ITEMS and all(
        len(line) <= ITEM_CHARS and _STARTS_HIGH.match(line) and not ends_sentence(line) and not _ENDS_OPEN.search(line)
        for line in lines
    )


class _Line:
    """A line with something to say, and what kind of line it is.

    Args:
        text: without white space at its ends.
        before: the line that it follows; None after a cut.
    """

    def __init__(self, text: str, before: _Line | None) -> None:
        self.text = text
        self.ended = ends_sentence(text)
        self.number: str | None = before.number if before is not None else None
        """The last line of the list that this line is in."""
        self.is_item = self._is_item(before)
        self.in_list: bool = self.is_item or (before is not None and before.in_list)

    def _is_item(self, before: _Line | None) -> bool:
        """Whether it has a bullet, a dash of dialogue, or a number of a list.

        A wrapped line may begin with a dash or with `42.` too.
        """
        stands_free = before is None or before.ended or before.text.endswith((":", "："))
        if _DASH.match(self.text):
            return stands_free or (before is not None and _DASH.match(before.text) is not None)
        if found := _NUMBER.match(self.text):
            number = found["number"] or found["letter"]
            if not (stands_free or number in ("1", "a", "A") or (self.number and _follows(self.number, number))):
                return False
            self.number = number
            return True
        return _BULLET.match(self.text) is not None


def _follows(last: str, number: str) -> bool:
    if last.isdigit() and number.isdigit():
        return int(number) == int(last) + 1
    return len(last) == len(number) == 1 and ord(number) == ord(last) + 1


def _parts(before: _Line, line: _Line, width: int) -> bool:
    """Whether the break between two lines ends a paragraph; `width` is the length of their block's longest line."""
    if line.is_item:
        return True
    if _STARTS_LOW.match(line.text):
        return False
    if (
        _CHAPTER.match(before.text)
        or _CHAPTER.match(line.text)
        or (_LABEL.match(before.text) and _LABEL.match(line.text))
    ):
        return True
    if before.ended or _ENDS_OPEN.search(before.text):
        return False
    titled = _is_heading(before.text)
    if titled and _is_heading(line.text):
        return True
    first_word = line.text.partition(" ")[0]
    if len(before.text) + 1 + len(first_word) > width:  # the line was full
        return False
    return titled or (before.in_list and _CASED.match(line.text) is not None)


def _is_heading(text: str) -> bool:
    """Whether a line looks like a title: short, without a mark at its end, all but its short words capitalised."""
    if len(text) > HEADING_CHARS or ends_sentence(text) or _ENDS_OPEN.search(text):
        return False
    words = _WORD.findall(text)
    return (
        bool(words)
        and _CASED.search(words[0]) is not None
        and not words[0][0].islower()
        and not words[-1][0].islower()
        and all(word in _MINOR for word in words if word[0].islower())
    )


def _joined(lines: list[str]) -> str:
    """One line of several."""
    parts = [lines[0]]
    for last, line in pairwise(lines):
        seam = f"{last[-2:]}\n{line[:1]}"
        if _BROKEN_WORD.search(seam) and not _SUSPENDED.match(line):
            parts[-1] = parts[-1][:-1]
        elif not _BETWEEN_UNSPACED.search(seam) and not (_HYPHENATED.search(seam) and not _SUSPENDED.match(line)):
            parts.append(" ")
        parts.append(line)
    return "".join(parts)
