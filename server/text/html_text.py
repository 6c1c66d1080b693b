"""Turns HTML and SSML into plain text, with a blank line between blocks, in linear time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

import regex

from server.text.matching import matches, replace
from server.text.word_set import word_set

_BLOCKS = word_set(
    "address article aside blockquote body br caption center dd details dialog div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hr html li main nav ol p paragraph pre section speak summary table tbody "
    "tfoot thead tr ul"
)
_CELLS = frozenset({"td", "th"})
_INLINE = word_set(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark q rp rt ruby s samp small "
    "span strike strong sub sup time tt u var wbr input col colgroup "
    # SSML
    "audio break emphasis lang lexicon lookup mark meta metadata phoneme prosody say-as sentence token voice w"
)
KNOWN = _BLOCKS | _CELLS | _INLINE
"""Tags that are taken away; any other, such as `<your name>`, is text."""
_ROWS = frozenset({"tr", "table", "tbody", "thead", "tfoot", "caption"})
"""Blocks that end a row of a table; other blocks in a cell are a part of the row."""
_SENTENCES = frozenset({"s", "sentence"})
"""In SSML; in HTML, `<s>` is struck-out text."""
_VENDORS = ("amazon:", "google:", "mstts:")
_FLAGS = word_set("allowfullscreen checked disabled hidden itemscope nowrap open readonly required reversed")
"""Attributes that need no value; with any other, as in `a <b and c> d`, the text is not a tag."""

TAG = regex.compile(r"</?(?P<name>[A-Za-z][A-Za-z0-9:-]{0,40})(?:\s[^<>]*)?/?>")
_INVISIBLE = regex.compile(
    r"<!--(?:(?!<!--|-->).)*-->"
    r"|<(script|style|head|template)(?:\s[^<>]*)?>(?:(?!<\1\b|</\1).)*</\1\s*>"
    r"|<(?:!doctype\b|\?xml\b)[^<>]*>",
    regex.IGNORECASE | regex.DOTALL,
)
_NO_ENTITY = regex.compile(r"&(?!(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)")
_BLANK_LINE = regex.compile(r"\n[ \t\r]*\n")
_NOTE = regex.compile(r"(?:(?<=\w\w)|(?<=[.,;:!?\"'”’)\]]))(?:\[[0-9]{1,3}\])+(?!\s?[=(\[])|\[\^[\w-]{1,40}\]:?")
"""Marks of footnotes: `[1]` behind a word or a mark, `[^name]` anywhere. `x[1] = 2` has none."""
_ENDS = (*".,;:!?。，！？；：",)


def html_to_text(text: str) -> str:
    """The words of HTML or SSML, without its tags; entities are decoded, scripts and comments dropped.

    What is no tag of HTML or SSML stays: `a < b`, `<your name>`. Cells of a row are joined by commas.
    """
    reader = _Reader()
    reader.feed(_well_formed(text))
    reader.close()
    return reader.text()


def is_tag(tag: regex.Match[str]) -> bool:
    """Whether what looks like a tag is one of HTML or SSML."""
    name = tag["name"].lower()
    return name in KNOWN or name.startswith(_VENDORS)


def _well_formed(text: str) -> str:
    """The text with every `<` and `&` escaped that is not plainly a tag's or an entity's."""
    text = replace(_NO_ENTITY, "&amp;", replace(_INVISIBLE, " ", text))
    parts, end = [], 0
    for tag in matches(TAG, text):
        if is_tag(tag):
            parts += [text[end : tag.start()].replace("<", "&lt;"), tag[0]]
            end = tag.end()
    return "".join([*parts, text[end:].replace("<", "&lt;")])


class _Reader(HTMLParser):
    """Collects blocks of text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._blocks: list[str] = []
        self._line: list[str] = []
        self._verbatim = self._code = self._aliased = 0
        self._in_row = self._is_ssml = False
        self._numbers: list[int | None] = []
        self._item = ""

    def text(self) -> str:
        """Return the text of all that has been read."""
        self._end_block()
        return "\n\n".join(self._blocks)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        values = {name: value for name, value in attrs if value is not None}
        if any(value is None and name not in _FLAGS for name, value in attrs):
            self.handle_data(self.get_starttag_text() or "")
        elif tag in _CELLS:
            self._start_cell()
        elif tag in _BLOCKS:
            self._start_block(tag, values)
        elif tag == "img":
            self.handle_data(values.get("alt", ""))
        elif tag == "sub":
            self.handle_data(values.get("alias", ""))
            self._aliased += "alias" in values or self._aliased > 0
        elif tag == "code":
            self._code += 1
        elif tag == "break" or (self._is_ssml and tag in _SENTENCES):
            self._line.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`: `<p/>` holds nothing."""
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """See `HTMLParser`."""
        if tag in _BLOCKS and tag != "br":
            self._break(tag)
            self._verbatim -= tag == "pre" and self._verbatim > 0
            if tag in ("ol", "ul") and self._numbers:
                self._numbers.pop()
        elif tag == "sub":
            self._aliased -= self._aliased > 0
        elif tag == "code":
            self._code -= self._code > 0
        elif self._is_ssml and tag in _SENTENCES:
            self._line.append(" ")

    def handle_data(self, data: str) -> None:
        """See `HTMLParser`."""
        if self._aliased:
            return
        if self._verbatim:
            self._add(data.split("\n"))
        elif self._code:
            self._line.append(data)
        else:
            before = "".join(self._line[-2:])[-2:]
            self._add(_parts(replace(_NOTE, "", before + data)[len(before) :]))

    def _add(self, blocks: Iterable[str]) -> None:
        for number, block in enumerate(blocks):
            if number:
                self._break("")
            self._line.append(block)

    def _start_block(self, tag: str, values: dict[str, str]) -> None:
        self._break(tag)
        self._aliased = 0
        self._is_ssml |= tag == "speak"
        self._verbatim += tag == "pre"
        if tag in ("ol", "ul"):
            self._numbers.append(_number(values.get("start"), 1) - 1 if tag == "ol" else None)
        elif tag == "li" and self._numbers and (last := self._numbers[-1]) is not None:
            number = _number(values.get("value"), last + 1)
            self._numbers[-1] = number
            self._item = f"{number}. "

    def _start_cell(self) -> None:
        cells = "".join(self._line).strip()
        if cells:
            self._line = [cells, " " if cells.endswith(_ENDS) else ", "]
        self._in_row = True

    def _break(self, tag: str) -> None:
        if self._in_row and tag not in _ROWS:
            self._line.append(" ")
        else:
            self._end_block()

    def _end_block(self) -> None:
        block = " ".join("".join(self._line).split())
        if block := block.removesuffix(",") if self._in_row else block:
            self._blocks.append(self._item + block)
            self._item = ""
        self._line = []
        self._in_row = False


def _parts(text: str) -> Iterator[str]:
    """What blank lines part."""
    start = 0
    for blank in matches(_BLANK_LINE, text):
        yield text[start : blank.start()]
        start = blank.end()
    yield text[start:]


def _number(written: str | None, default: int) -> int:
    return int(written) if written and regex.fullmatch("[0-9]{1,9}", written) else default
