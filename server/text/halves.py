"""Halves of characters, which a text has that was cut within an emoji: surrogates, as UTF-16 knows them.

JSON may hold them, and nothing can encode them.
"""

from __future__ import annotations

import re

AT_ONCE = 1000
"""Characters in which halves are looked for at once: each that is found is replaced by a call of Python, and all other
threads wait until the last one of a piece is. A million of them took 120 ms."""
REPLACEMENT = "\ufffd"

_LONE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")


def whole_characters(text: str) -> str:
    """A text whose pairs of halves are characters, with U+FFFD for each half without its other one."""
    try:
        text.encode()  # far faster than to search
    except UnicodeEncodeError:
        characters = WholeCharacters()
        return characters.feed(text) + characters.end()
    return text


class WholeCharacters:
    """Does the same with a text that arrives over time, cut off anywhere."""

    def __init__(self) -> None:
        self._half = ""
        """The first half of a pair that the second has not followed yet."""

    def feed(self, text: str) -> str:
        """Take in more of the text; returns what of it is whole by now."""
        return "".join(self._whole(text[start : start + AT_ONCE]) for start in range(0, len(text), AT_ONCE))

    def _whole(self, text: str) -> str:
        text, self._half = self._half + text, ""
        if _is_first(text[-1]):
            text, self._half = text[:-1], text[-1]
        return _LONE.sub(REPLACEMENT, text).encode("utf-16", "surrogatepass").decode("utf-16")

    def end(self) -> str:
        """What stands for a half that nothing has followed."""
        half, self._half = self._half, ""
        return REPLACEMENT if half else ""


def _is_first(sign: str) -> bool:
    return "\ud800" <= sign <= "\udbff"
