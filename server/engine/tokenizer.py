"""Text to ids. The bundle's `tokenizer.json` has no control tokens, so no text can become one."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Encoding, Tokenizer

from server.graphs.manifest import BundleError

_LOOKED_AT = 16
"""Characters of a text for each token that it may have; prose has 3 to 5."""


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

    def count(self, text: str) -> int:
        """How many ids `encode` gives."""
        return len(self._encoding(text))

    def surely_exceeds(self, text: str, tokens: int) -> bool:
        """Whether the beginning of a text alone shows that all of it has more than so many tokens.

        It may take back a few tokens where the text is cut, so that twice as many are asked for. A text that is not
        refused so has no more than some tens of thousands.
        """
        beginning = text[: _LOOKED_AT * tokens]
        return len(beginning) < len(text) and self.count(beginning) > 2 * tokens

    def _encoding(self, text: str) -> Encoding:
        # `encode_batch_fast` lets other threads run meanwhile, which `encode` does not, and notes no offsets.
        found: list[Encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return found[0]
