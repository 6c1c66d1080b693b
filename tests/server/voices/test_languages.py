"""Languages by name and code."""

from __future__ import annotations

import pytest

from server.errors import InvalidRequestError
from server.voices.languages import _ISO_CODES, code, resolve, spoken

AVAILABLE = [*_ISO_CODES, "beijing_dialect"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("English", "english"),
        ("ENGLISH", "english"),
        (" en ", "english"),
        ("EN", "english"),
        ("en-GB", "english"),
        ("pt_BR", "portuguese"),
        ("zh-Hans-CN", "chinese"),
        ("deu", "german"),
        ("ger", "german"),
        ("ja", "japanese"),
        ("ko", "korean"),
        ("fr", "french"),
        ("ru", "russian"),
        ("es", "spanish"),
        ("it", "italian"),
        ("Auto", "auto"),
        ("auto-detect", "auto"),
        ("Auto Detect", "auto"),
        ("autodetect", "auto"),
        ("en_US.UTF-8", "english"),
        ("de_DE@euro", "german"),
        ("pt_BR.ISO8859-1@x", "portuguese"),
        ("a", "english"),
        ("b", "english"),
        ("e", "spanish"),
        ("f", "french"),
        ("i", "italian"),
        ("j", "japanese"),
        ("P", "portuguese"),
        ("z", "chinese"),
    ],
)
def test_names_and_codes_in_any_case(given: str, meant: str) -> None:
    assert resolve(given, AVAILABLE) == meant


@pytest.mark.parametrize("given", ["", "klingon", "xx", "h", "en-", "en_US.", "beijing_dialect", "englisch", "enx"])
def test_others_are_refused_with_the_list(given: str) -> None:
    with pytest.raises(InvalidRequestError, match="auto, chinese, english") as caught:
        resolve(given, AVAILABLE)
    assert caught.value.param == "language"


def test_a_language_that_this_model_lacks() -> None:
    with pytest.raises(InvalidRequestError, match=r"must be one of auto, english$"):
        resolve("de", ["english"])


@pytest.mark.parametrize(
    ("given", "meant"), [("English", "English"), ("en", "English"), ("german", "german"), ("German", "German"),
                         ("GERMAN", "German"), ("Old  Norse", "Old  Norse"), (" old  norse ", "Old  Norse")]
)  # fmt: skip
def test_a_models_own_names_have_any_case(given: str, meant: str) -> None:
    assert resolve(given, ["English", "German", "german", "Old  Norse"]) == meant
    assert code("English") == "en"


def test_dialects_are_not_listed() -> None:
    assert spoken(["english", "beijing_dialect", "chinese"]) == ["chinese", "english"]


def test_iso_codes_of_what_a_request_resolves_to() -> None:
    names = [resolve(name, [*AVAILABLE, "latin"]) for name in ("en", "GER", "zh-Hans", "latin", "auto")]
    assert [code(name) for name in names] == ["en", "de", "zh", None, None]
