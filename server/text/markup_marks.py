"""Tells Markdown and HTML from texts that merely have an asterisk or an angle bracket."""

from __future__ import annotations

import html.entities

import regex

from server.text.html_text import TAG, is_tag
from server.text.matching import found_in, matches

_MARKDOWN = tuple(
    regex.compile(pattern, regex.MULTILINE)
    for pattern in (
        r"^ {0,3}#{1,6} +[^\s#0-9]",  # a heading; `# 1 fan` is none
        r"^ {0,3}#{2,6} +[0-9]",
        r"\S[ \t]*\n {0,3}(?:={3,}|-{3,})[ \t]*$",  # a heading by what is below it
        r"^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$",  # a rule
        r"^[ \t]*(?:`{3,}|~{3,})",  # a code fence
        r"(?<![`\w])`(?!`)[^`\n]+`(?!`)",
        r"(?<![0-9A-Za-z*\\])\*\*?\*?(?![\s*])[^*\n]*(?<![\s*])\*\*?\*?(?![0-9A-Za-z*])",  # emphasis
        r"(?<![\w\\])__(?![\s_])(?=[^_\n]* )[^_\n]*(?<![\s_])__(?!\w)",  # `__init__` is none
        r"(?<![\w\\])_(?![\s_])[^_\n]*(?<![\s_])_(?!\w)",
        r"~~(?![\s~])[^~\n]+~~",
        r"^ {0,3}> ?[^\s0-9>=<]",  # a quotation
        r"^[ \t]*\* +[^\W\d_]",  # an item
        r"^[ \t]*[-*+] +\[[ xX]\] ",
        r"^[ \t]*([-*+])[ \t]+\S.*\n(?:[ \t]*\n)?[ \t]*\1[ \t]+\S",  # two items
        r"^[ \t]*[0-9]{1,3}[.)][ \t]+\S.*\n(?:[ \t]*\n)?[ \t]*[0-9]{1,3}[.)][ \t]+\S",
        r"^(?=[ \t|:]*-)(?=[ \t:-]*\|)[-:| \t]*$",  # what is below a table's head
        r"(?<![0-9A-Za-z_])!?\[[^\[\]\n]*\]\((?:[A-Za-z]+:|[/#.]|www\.|[+-]?[0-9.]+\)|[\w%-]+[./])",  # a link
        r"!\[[^\[\]\n]*\]\([^()\s]",
        r"(?:[^\W\d_]{3}|[0-9]{2}|[.,;:!?)\"”])\[[0-9]{1,3}\](?!\s?[=(\[]|\.\w|\w)",  # a footnote
        r"\[\^[\w-]{1,40}\]",
        r"^ {0,3}\[[^\[\]\n]{1,200}\]:[ \t]{0,20}<?https?://",
    )
)
_VOID = frozenset({"br", "hr", "img", "wbr"})
_HTML = regex.compile(r"<!--(?:(?!<!--|-->).)*-->|<!doctype html\b", regex.IGNORECASE | regex.DOTALL)
_ENTITY = regex.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|(?P<name>[A-Za-z][A-Za-z0-9]{1,31}));")


def plainly_markdown(text: str) -> bool:
    """Whether a text has a mark that is there for Markdown alone."""
    return any(found_in(mark, text) for mark in _MARKDOWN)


def plainly_html(text: str) -> bool:
    """Whether a text has an element of HTML or SSML, an entity or a comment."""
    opened = set()
    for tag in matches(TAG, text):
        if not is_tag(tag):
            continue
        name = tag["name"].lower()
        if name in _VOID or tag[0].endswith("/>"):
            return True
        if not tag[0].startswith("</"):
            opened.add(name)
        elif name in opened:
            return True
    if found_in(_HTML, text):
        return True
    return any(not (name := found["name"]) or f"{name};" in html.entities.html5 for found in matches(_ENTITY, text))
