"""Finds a model's language by the names that people use for it; a manifest may spell its names in any case."""

from __future__ import annotations

import re
from collections.abc import Iterable

from server.errors import InvalidRequestError

AUTO = "auto"

_ISO_CODES = {
    "chinese": ("zh", "zho", "chi"),
    "english": ("en", "eng"),
    "japanese": ("ja", "jpn"),
    "korean": ("ko", "kor"),
    "german": ("de", "deu", "ger"),
    "french": ("fr", "fra", "fre"),
    "russian": ("ru", "rus"),
    "portuguese": ("pt", "por"),
    "spanish": ("es", "spa"),
    "italian": ("it", "ita"),
}
_KOKORO_CODES = {
    "a": "english",
    "b": "english",
    "e": "spanish",
    "f": "french",
    "i": "italian",
    "j": "japanese",
    "p": "portuguese",
    "z": "chinese",
}
"""Kokoro's `lang_code`; its `h`, Hindi, is not a language of Qwen3-TTS."""
_AUTO = frozenset({AUTO, "auto_detect", "autodetect", "auto_detection", "detect", "automatic"})
KNOWN = tuple(_ISO_CODES)
"""All languages that a Qwen3-TTS model may have."""
_NAME_OF_CODE = {code: name for name, codes in _ISO_CODES.items() for code in codes} | _KOKORO_CODES
_TAG = re.compile(r"([a-z]{1,3})(?:[-_][a-z0-9]{2,8})*(?:\.[a-z0-9-]+)?(?:@[a-z0-9]+)?")
"""Matches a language tag, or a locale of POSIX: `pt-BR`, `en_US.UTF-8`, `de_DE@euro`."""


def spoken(languages: Iterable[str]) -> list[str]:
    """List the languages that a request may name; dialects belong to speakers and are left out."""
    return sorted(name for name in languages if not name.endswith("_dialect"))


def code(language: str) -> str | None:
    """Return the ISO 639-1 code of a language that `resolve` has found; None for `auto` and for unknown languages."""
    codes = _ISO_CODES.get(language.lower())
    return codes[0] if codes else None


def find(name: str, available: Iterable[str]) -> str | None:
    """Find the model's language of this name: of exactly this spelling, else of another case."""
    choices = sorted(available)
    if name in choices:
        return name
    return next((choice for choice in choices if choice.lower() == name.lower()), None)


def resolve(language: str, available: Iterable[str]) -> str:
    """Find the model's name of a language, given in any case.

    Args:
        language: `auto`, a name such as English, an ISO 639 code with or without a region (en, eng, en-GB), a locale
            (en_US.UTF-8), or one of Kokoro's letters.
        available: the model's languages.

    Raises:
        InvalidRequestError: the model does not have it.
    """
    wanted = language.strip()
    if re.sub("[ -]", "_", wanted.lower()) in _AUTO:
        return AUTO
    choices = spoken(available)
    tag = _TAG.fullmatch(wanted.lower())
    name = (
        find(language, choices) or find(wanted, choices) or find(_NAME_OF_CODE.get(tag[1], "") if tag else "", choices)
    )
    if name is None:
        raise InvalidRequestError(f"language must be one of {', '.join([AUTO, *choices])}", param="language")
    return name
