"""Reads the operator's pronunciation dictionary, `KW_LEXICON_FILE`."""

from __future__ import annotations

import json
from pathlib import Path

from server.text.lexicon import Lexicon, LexiconError, lexicon_of


def load_lexicon(path: Path | None) -> Lexicon:
    """Read a dictionary.

    Args:
        path: a file of JSON in UTF-8, `{"WORD": "what to say", "WORD": {"say": "what to say", "any_case": true}}`; None
            gives an empty dictionary.

    Raises:
        LexiconError: the file cannot be read or does not fit; the message names it and what is wrong.
    """
    if path is None:
        return Lexicon()
    try:
        entries = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise LexiconError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise LexiconError(f"{path} is not UTF-8; save it as UTF-8") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise LexiconError(f"{path} is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise LexiconError(f'{path} must hold one JSON object: {{"WORD": "what to say", ...}}')
    try:
        return lexicon_of(entries)
    except LexiconError as error:
        raise LexiconError(f"{path}: {error}") from None
