"""Text to ids. The bundle's `tokenizer.json` has no control tokens, so no text can become one."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from server.graphs.manifest import BundleError


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
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids
