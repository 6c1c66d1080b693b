"""Text to ids. The bundle's `tokenizer.json` has no control tokens, so no text can become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from server.manifest import BundleError

_COUNTED_AT_ONCE = 4096
"""Characters; a sentence or a chunk has far fewer."""


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
