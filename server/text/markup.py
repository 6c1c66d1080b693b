"""Turns Markdown, HTML and SSML into plain text: what is inside is said, and the marks are not.

Markdown is rendered by `markdown-it-py`, and HTML, that of Markdown included, is read by the standard library's parser.
Both get only pieces of a bounded size, or text whose `<` and `&` are known to be well formed: either would otherwise
take time that grows with the square of some texts.

Choices where people expect different things:

- Everything is said, so that no word is silently lost: code in a fence too, line by line, and actions such as
  `*she smiles*`, which differ from emphasis in nothing. Only an address behind a link's words is left out.
- A bracketed word, such as `[laughs]`, is no markup.
- An ordered list keeps its numbers, since they are part of what is meant.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Literal, NamedTuple

import regex
from markdown_it import MarkdownIt
from markdown_it.token import Token

from server.text.html_text import html_to_text
from server.text.markup_marks import plainly_html, plainly_markdown
from server.text.matching import matches, replace

TextFormat = Literal["auto", "plain", "markdown", "html"]

PIECE = 2000
"""Characters that the Markdown parser gets at once: some paragraphs, or a part of a longer one."""
_BLOCK = "\n\n"
_START, _END = "<p>", "</p>\n"  # as the renderer writes a paragraph

_FENCE = regex.compile(r"[ \t]{0,12}(?:(?:[-*+]|\d{1,9}[.)])[ \t]{1,4})?(?P<fence>`{3,}(?=[^`\n]*$)|~{3,})")
_IPA = regex.compile(r"\[([^\[\]\n]+)\]\(/[^()\n]{0,200}/\)")
"""Pronunciations as Kokoro has them; with blanks in them they are no links to Markdown."""
_NO_REFERENCE = regex.compile(r"(?m)^( {0,3})\[(?=[^\[\]\n]*\]:(?!\s{0,20}<?(?:https?:|www\.|mailto:|[/#.])))")
"""`[Anna]: hello` would define a link and be lost; only what looks like an address is one."""
_REFERENCE = regex.compile(
    r"(?m)^ {0,3}\[[^\[\]\n]{1,200}\]:[ \t]{0,20}<?(?:https?:|www\.|mailto:|[/#.])\S{0,2000}.{0,200}$"
)
_TIMES = regex.compile(r"(?<=[0-9A-Za-z])\*(?=[0-9A-Za-z])")
_TIMES_STAND_IN = "\ufdd0"
"""A noncharacter, which no text holds: `2*3*4` is arithmetic, though Markdown has emphasis inside words."""
_LEFT_OVER = regex.compile(r"(?<![0-9A-Za-z*])\*\*(?=[^\s*])|(?<=[^\s*])\*\*(?![0-9A-Za-z*])")
"""Marks that CommonMark does not take for emphasis beside CJK punctuation, as in `**注意：**请`."""
_ADDRESS_IN_BRACKETS = regex.compile(
    r"<((?:https?://|mailto:|www\.)[^\s<>]+|[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,190})>"
)
_TASK = regex.compile(r"\[[ xX]\][ \t]+")


class _Piece(NamedTuple):
    """A part of a Markdown text.

    Attributes:
        text: without the line break that ends it.
        joint: what stands before it; anything but a blank line where a paragraph was cut.
        code: whether it is the inside of a code fence.
    """

    text: str
    joint: str
    code: bool = False


def convert(text: str, text_format: TextFormat) -> str:
    """Return a text without its marks; blocks (paragraphs, headings, items, rows) are separated by a blank line.

    `auto` converts a text that is plainly Markdown or HTML, SSML included, and leaves every other exactly as it is.
    The work is linear in the length of the text.
    """
    if text_format == "plain":
        return text
    if text_format == "html":
        return _from_html(text)
    if text_format == "markdown" or plainly_markdown(text):
        return _from_markdown(text)
    return _from_html(text) if plainly_html(text) else text


def _inside(found: regex.Match[str]) -> str:
    return str(found[1])


def _from_html(text: str) -> str:
    return html_to_text(replace(_ADDRESS_IN_BRACKETS, _inside, text))


def _from_markdown(text: str) -> str:
    text = replace(_ADDRESS_IN_BRACKETS, _inside, text.replace("\r\n", "\n").replace("\r", "\n"))
    text = replace(_IPA, _inside, text)
    parser = _parser()
    references: dict[str, object] = {}
    parser.parse("\n".join(found[0] for found in matches(_REFERENCE, text)), references)
    rendered: list[str] = []
    for piece in _pieces(text):
        if piece.code:
            rendered.append(f"\n\n<pre>{html.escape(piece.text)}</pre>")
            continue
        tokens = parser.parse(_NO_REFERENCE.sub(r"\1\\[", _TIMES.sub(_TIMES_STAND_IN, piece.text)), references)
        _number(tokens)
        more = _LEFT_OVER.sub("", parser.renderer.render(tokens, parser.options, references))
        if piece.joint != _BLOCK and rendered and rendered[-1].endswith(_END) and more.startswith(_START):
            rendered[-1], more = rendered[-1].removesuffix(_END), more.removeprefix(_START)
        rendered += (piece.joint, more)
    return html_to_text("".join(rendered)).replace(_TIMES_STAND_IN, "*")


class _Markdown(MarkdownIt):
    """Accepts every link, since none is followed."""

    def validateLink(self, url: str) -> bool:  # noqa: N802
        return True


def _parser() -> MarkdownIt:
    parser = _Markdown("commonmark", {"maxNesting": 20}).enable(["table", "strikethrough"])
    # Indented lines are poems and wrapped mails more often than code.
    parser.disable("code")
    return parser


def _number(tokens: list[Token]) -> None:
    """Give items of ordered lists the number that they are written with, or the next one after the same again."""
    last: list[tuple[str, int]] = []
    for token in tokens:
        if token.type == "ordered_list_open":
            last.append(("", 0))
        elif token.type == "ordered_list_close":
            last.pop()
        elif token.type == "list_item_open" and token.info:
            info, number = last[-1]
            number = number + 1 if token.info == info else int(token.info)
            last[-1] = (token.info, number)
            token.attrSet("value", str(number))
        elif token.type == "inline" and token.children and token.children[0].type == "text":
            token.children[0].content = _TASK.sub("", token.children[0].content, count=1)


def _pieces(text: str) -> Iterator[_Piece]:
    """Cut a text into the insides of code fences, and the rest into pieces of at most `PIECE` characters."""
    lines: list[str] = []
    size, fence, joint = 0, "", _BLOCK
    for line in text.split("\n"):
        if fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                yield _Piece("\n".join(lines), _BLOCK, code=True)
                lines, fence, joint = [], "", _BLOCK
            else:
                lines.append(line)
            continue
        opened = _FENCE.match(line)
        blank = not line.strip()
        if opened or size + len(line) > PIECE or (blank and size > PIECE // 2):
            yield _Piece("\n".join(lines), joint)
            lines, size, joint = [], 0, _BLOCK if opened or blank else "\n"
        if opened:
            fence = opened["fence"]
            continue
        while len(line) > PIECE:
            cut = line.rfind(" ", 1, PIECE) if " " in line[1:PIECE] else PIECE
            yield _Piece(line[:cut], joint)
            line, joint = line[cut:], " " if line[cut] == " " else ""
        lines.append(line)
        size += len(line) + 1
    yield _Piece("\n".join(lines), joint, code=bool(fence))
