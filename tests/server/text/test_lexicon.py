"""A pronunciation dictionary replaces whole words, the longest first, in linear work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.speech.lexicon_file import load_lexicon
from server.text.lexicon import MAX_ENTRIES, MAX_SAY_CHARS, MAX_WORD_CHARS, Lexicon, LexiconError, lexicon_of

ANY = {"say": "sequel", "any_case": True}


@pytest.mark.parametrize(
    ("entries", "text", "said"),
    [
        ({"nginx": "engine x"}, "nginx, then nginx.", "engine x, then engine x."),
        ({"nginx": "engine x"}, "Nginx NGINX nginxes unginx", "Nginx NGINX nginxes unginx"),
        ({"SQL": ANY}, "SQL sql Sql MySQL", "sequel sequel sequel MySQL"),
        ({"New": "old", "New York": "the city", "New York City": "it"}, "New York City, New York, New",
         "it, the city, old"),
        ({"C++": "C plus plus", "C": "see"}, "C++ or C", "C plus plus or see"),
        ({".NET": "dot net"}, "Use .NET now.", "Use dot net now."),
        ({"John": "Jon"}, "John's and (John)", "Jon's and (Jon)"),
        ({"a": "b", "b": "a"}, "a b", "b a"),
        ({"um": ""}, "Well um yes", "Well  yes"),
        ({"重庆": "崇庆"}, "我去重庆玩", "我去崇庆玩"),
        ({"東京 タワー": "tower"}, "東京 タワーへ", "towerへ"),
        ({"straße": {"say": "street", "any_case": True}}, "Straße, STRASSE", "street, STRASSE"),
        ({"x  y": "z"}, "x y", "z"),
        ({"x_1": "x one"}, "x_1 x_12", "x one x_12"),
        ({}, "as it is", "as it is"),
    ],
)  # fmt: skip
def test_whole_words_are_replaced(entries: dict[str, Any], text: str, said: str) -> None:
    assert lexicon_of(entries).apply(text) == said


@pytest.mark.parametrize(
    ("request_entries", "said"),
    [
        ({}, "file file"),
        ({"GIF": "request"}, "request file"),
        ({"gif": {"say": "request", "any_case": True}}, "request request"),
        ({"other": "request"}, "file file"),
    ],
)
def test_the_first_of_two_dictionaries_counts(request_entries: dict[str, Any], said: str) -> None:
    both = lexicon_of(request_entries).before(lexicon_of({"GIF": "file", "gif": "file"}))
    assert both.apply("GIF gif") == said


def test_the_longest_match_counts_in_either_dictionary() -> None:
    assert lexicon_of({"New": "1"}).before(lexicon_of({"New York": "2"})).apply("New York New") == "2 1"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({str(number): "x" for number in range(MAX_ENTRIES + 1)}, "at most 10000 entries"),
        ({"w" * (MAX_WORD_CHARS + 1): "x"}, "is too long: a word has at most 100 characters"),
        ({"word": "x" * (MAX_SAY_CHARS + 1)}, "says too much"),
        ({" \n": "x"}, "a word is empty"),
        ({"word": 5}, "'word' has no text to say; an entry is"),
        ({"word": None}, "'word' has no text to say"),
        ({"word": {"any_case": True}}, "'word' has no text to say"),
        ({"word": {"say": "x", "case": True}}, "'word' has no text to say"),
        ({"word": {"say": 5}}, "'word' has a value of the wrong type"),
        ({"word": {"say": "x", "any_case": "yes"}}, "'word' has a value of the wrong type"),
    ],
)
def test_what_is_no_dictionary_is_told(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(LexiconError) as caught:
        lexicon_of(entries)
    assert message in str(caught.value)


def test_a_text_does_not_grow_without_bound() -> None:
    lexicon = lexicon_of({"a": "b" * MAX_SAY_CHARS})
    assert lexicon.apply("a a").count("b") == 2 * MAX_SAY_CHARS
    with pytest.raises(LexiconError, match="10 times as long"):
        lexicon.apply("a " * 1000)


def test_a_long_text_becomes_little_more_than_twice_as_long() -> None:
    """100,000 characters had become a million, which took as long to prepare as ten such texts."""
    lexicon = lexicon_of({"a": "b", "c": "d" * 5})
    text = "a " * 50_000
    assert lexicon.apply(text) == "b " * 50_000
    assert len(lexicon.apply("a c " * 20_000)) == 8 * 20_000
    with pytest.raises(LexiconError, match="a long text more than twice"):
        lexicon.apply("c " * 50_000)


ENTRIES = {f"word{number}": "said" for number in range(MAX_ENTRIES // 2)} | {
    f"word0 {'x' * (number % 90)}{number}": "said" for number in range(MAX_ENTRIES // 2)
}


@pytest.mark.parametrize("piece", ["word0 ", "word1 word2 ", "a", "word", "字", "! ", "word0 x", "e\u0301"])
def test_a_long_text_and_a_long_dictionary_are_linear_work(piece: str) -> None:
    text = (piece * (200_000 // len(piece) + 1))[:200_000]
    assert len(lexicon_of(ENTRIES).apply(text)) <= len(text)


@given(st.text(), st.dictionaries(st.text(min_size=1, max_size=5).filter(str.strip), st.just("x")))
def test_any_text_and_dictionary_will_do(text: str, entries: dict[str, str]) -> None:
    lexicon = lexicon_of(entries)
    assert Lexicon().apply(text) == text
    assert lexicon.apply(lexicon.apply(text)).count(" ") <= text.count(" ")
    for word in entries:
        assert lexicon_of({word: "replaced"}).apply(" ".join(word.split())) in ("replaced", " ".join(word.split()))


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.json"
    path.write_text("\ufeff" + json.dumps({"nginx": "engine x", "sql": ANY}), "utf-8")
    assert load_lexicon(path).apply("nginx SQL") == "engine x sequel"
    assert load_lexicon(None).apply("nginx SQL") == "nginx SQL"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"[1]", "must hold one JSON object"),
        ("{}".encode("utf-16"), "is not UTF-8"),
        (b'{"a": 1}', "lexicon.json: 'a' has no text to say"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_a_file_that_does_not_fit_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "lexicon.json"
    path.write_bytes(content)
    with pytest.raises(LexiconError) as caught:
        load_lexicon(path)
    assert str(path) in str(caught.value) and message in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LexiconError, match=r"absent\.json cannot be read: No such file"):
        load_lexicon(tmp_path / "absent.json")
