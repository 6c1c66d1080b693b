"""Takes out of a text what no reader sees or says: invisible characters, odd blanks, long runs of one symbol.

The steps hold for every model. A text that people would call clean passes through each of them unchanged.
"""

from __future__ import annotations

import regex

from server.text.matching import replace

MAX_ALIKE = 3
"""How many of one symbol in a row are kept, as in `...` and `?!!!`: longer runs are rules or leaders."""

MOST_MARKS = 30
"""Combining marks that one letter may have: Unicode's Stream-Safe Text Format (UAX #15, section 13) has this limit, and
no writing system needs as many."""

_EMOJI = r"[\p{Emoji}\p{Extended_Pictographic}]"
_JOINING = (
    r"[\p{Arabic}\p{Syriac}\p{Nko}\p{Mandaic}\p{Mongolian}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Oriya}"
    r"\p{Tamil}\p{Telugu}\p{Kannada}\p{Malayalam}\p{Sinhala}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
)
"""Scripts whose letters join, so that ZWJ (U+200D) and ZWNJ (U+200C) between them are part of the spelling."""

_INVISIBLE = regex.compile(
    # What is kept: a flag's tag characters, and joiners and variation selectors where they change what is written.
    r"(?P<kept>\U0001F3F4[\U000E0020-\U000E007E]{1,10}\U000E007F"
    rf"|(?<={_EMOJI}[\p{{EMod}}\uFE0F]?)\u200D(?={_EMOJI})"
    rf"|(?<={_JOINING})[\u200C\u200D](?={_JOINING})"
    r"|(?<=[\p{Emoji}\p{Han}\p{Mongolian}\p{Myanmar}\p{Phags_Pa}])\p{Variation_Selector})"
    # What is dropped: a soft hyphen with the line break that it stands at, terminal colours, and all else unseen.
    r"|\u00AD\p{Blank}*+(?:\r\n|[\n\r\u0085\u2028])\p{Blank}*+(?=\p{L})"
    r"|\x1B\[[0-9;?]{0,16}[A-Za-z]"
    r"|[[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}]--[\t\n\v\f\r\u0085\p{Prepended_Concatenation_Mark}]]",
    regex.V1,
)
_LINE_BREAK = regex.compile(r"\r\n|[\v\f\r\u0085\u2028]")
_PARAGRAPH_SEPARATOR = "\u2029"
_BLANKS = regex.compile(r"[\p{Zs}\t\u2800]{2,}|[[\p{Zs}\t\u2800]--\ ]", regex.V1)
"""Matches blanks but for single spaces; U+2800, the Braille pattern without dots, looks like one and is not in `Zs`."""
_BLANKS_AT_BREAKS = regex.compile(r" \n ?|\n ")
_BREAKS = regex.compile(r"\n{3,}")
_ALIKE = regex.compile(
    rf"([^\p{{L}}\p{{M}}\p{{N}}\s][\p{{EMod}}\uFE0F]?+)(?: ?\1){{{MAX_ALIKE},}}+",
    regex.V1,
)
_MARKS = regex.compile(rf"(\p{{M}}{{{MOST_MARKS}}})\p{{M}}++")


def without_invisibles(text: str) -> str:
    """Drop zero-width and control characters, byte order marks, soft hyphens and marks of direction.

    Kept are tabs and line breaks, and joiners and variation selectors that a script or an emoji needs. Hangul fillers
    and other letters that Unicode lets programs ignore go too. A soft hyphen at a line's end goes with the line break.
    """
    return replace(_INVISIBLE, lambda found: found["kept"] or "", text)


def single_blanks(text: str) -> str:
    r"""Make every blank a space and every line break `\n`; runs become one space, or the two breaks of a blank line.

    A tab, a no-break space and U+3000 are blanks. There are none at the ends of lines and of the text.
    """
    text = replace(_LINE_BREAK, "\n", text).replace(_PARAGRAPH_SEPARATOR, "\n\n")
    text = replace(_BLANKS_AT_BREAKS, "\n", replace(_BLANKS, " ", text))
    return replace(_BREAKS, "\n\n", text).strip()


def short_runs(text: str) -> str:
    """Keep at most `MAX_ALIKE` of one symbol in a row, with or without single spaces between; likewise of marks on one
    letter, `MOST_MARKS`.

    Letters and digits are no symbols.
    """
    text = replace(_ALIKE, lambda run: run[1] * MAX_ALIKE, text)
    return replace(_MARKS, lambda run: run[1], text)
