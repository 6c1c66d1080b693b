"""Text to ids. The bundle's `tokenizer.json` has no control tokens, so no text can become one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from server.manifest import BundleError

_COUNTED_AT_ONCE = 4096
"""Characters; a sentence or a chunk has far fewer."""


_PRINTABLE = frozenset((*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)))
_OTHERS = iter(range(0x100, 0x200))
_LEVEL = [chr(byte if byte in _PRINTABLE else next(_OTHERS)) for byte in range(256)]
"""How byte-level BPE writes each byte (GPT-2's `bytes_to_unicode`)."""
_LATER = "".join(_LEVEL[0x80:0xC0])
"""Bytes of a character behind its first one."""
_CHARACTER = re.compile(f"[^{_LATER}][{_LATER}]*|[{_LATER}]+")
"""A character of a token, or what a token has of it."""
_SEAMS_FROM = "\u0e00"
"""The first letter that there may be seams behind: scripts that come before it put spaces between words."""
_JOINED = re.compile(f".[{''.join(_LEVEL[0xE0:0xF5])}]")


class TextTokenizer:
    """The checkpoint's byte-level BPE.

    Raises:
        BundleError: the file cannot be read as a tokenizer.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise BundleError(
                f"{path.parent.name}: {path.name} cannot be read; convert the checkpoint again"
            ) from error

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; `<|im_end|>` and its like are text as any other."""
        ids: list[int] = self._encoding(text).ids
        return ids

    def encode_pieces(self, pieces: Sequence[str]) -> list[int]:
        """Ids of pieces of `cut`, in order; they are those that `encode` gives of the whole."""
        found: list[Encoding] = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        return [number for encoding in found for number in encoding.ids]

    def normal(self, text: str) -> str:
        """The text in the normal form in which it is encoded."""
        normalizer = self._tokenizer.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def cut(self, normal: str) -> list[str]:
        """The pieces of a text in its normal form that are encoded one by one: words for the most part.

        What stands behind a text may change its last piece, and white space before a line break is one with it.
        """
        found: list[tuple[str, tuple[int, int]]] = self._tokenizer.pre_tokenizer.pre_tokenize_str(normal)
        return [normal[start:stop] for _, (start, stop) in found]

    def seam(self, piece: str) -> int:
        """The last place of a piece of `cut` up to which it is encoded alike, whatever follows the piece; 0 if none is.

        There no entry of the vocabulary can lie across, so that no merge can. The last letter may yet change.
        """
        for place in range(len(piece) - 2, 0, -1):
            before, after = piece[place - 1], piece[place]
            letters = before.isalpha() and after.isalpha() and min(before, after) >= _SEAMS_FROM
            if letters and self._part(before, after):
                return place
        return 0

    def _part(self, before: str, after: str) -> bool:
        """Whether no entry of the vocabulary has an end of one character and then a beginning of the other."""
        left, right = ("".join(_LEVEL[byte] for byte in letter.encode()) for letter in (before, after))
        ends = [left[start:] for start in range(len(left))]
        beginnings = [right[:stop] for stop in range(1, len(right) + 1)]
        return self.joints.isdisjoint(product(ends, beginnings))

    @cached_property
    def joints(self) -> frozenset[tuple[str, str]]:
        """What stands side by side in some entry of the vocabulary, as far as `seam` asks; it is found in a second."""
        # One by one: all at once would hold up the other threads.
        tokens = (self._tokenizer.id_to_token(number) or "" for number in range(self._tokenizer.get_vocab_size()))
        return frozenset(
            (left, right)
            for token in tokens
            if _JOINED.search(token)
            for left, right in pairwise(_CHARACTER.findall(token))
            if right[0] >= _LEVEL[0xE0]
        )

    def count(self, text: str) -> int:
        """About how many ids `encode` gives: a long text is counted piece by piece, and a token may lie across two."""
        return sum(self._counts(text))

    def surely_exceeds(self, text: str, tokens: int) -> bool:
        """Whether a text has more than so many tokens, however it is counted; found without reading on from there."""
        total = 0
        return any((total := total + count) > 2 * tokens for count in self._counts(text))

    def _counts(self, text: str) -> Iterator[int]:
        # A token takes some hundred bytes while its text is encoded.
        for start in range(0, len(text), _COUNTED_AT_ONCE):
            yield len(self._encoding(text[start : start + _COUNTED_AT_ONCE]))

    def _encoding(self, text: str) -> Encoding:
        # `encode_batch_fast` lets other threads run meanwhile, which `encode` does not, and notes no offsets.
        found: list[Encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return found[0]
