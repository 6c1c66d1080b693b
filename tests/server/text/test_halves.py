from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.speech.request_parsing import of_object
from server.text import halves
from server.text.halves import AT_ONCE, WholeCharacters, whole_characters
from server.text.live import Splitter
from server.wyoming import conversation


def of_a_field(text: str) -> str:
    return of_object({"input": text}).input


def of_live_text(text: str) -> str:
    splitter = Splitter("none", None)
    splitter.feed(text)
    return "".join(splitter.flush())


def of_a_ping(text: str) -> str:
    return conversation._sendable(text) or ""


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("Hi \ud83d", "Hi \ufffd"),
        ("Hi \ud83d\ude00", "Hi \U0001f600"),
        ("Hi \ude00\ud83d", "Hi \ufffd\ufffd"),
        ("Hi \ud83d\ud83d\ude00\ude00 there", "Hi \ufffd\U0001f600\ufffd there"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("read", [of_a_field, of_live_text, of_a_ping])
def test_halves_mean_the_same_wherever_a_text_comes_from(read: Callable[[str], str], cut: str, whole: str) -> None:
    """A pair of halves was one character in text that is spoken while it comes, and two signs that stand for nothing in
    the fields of a request."""
    assert read(cut) == whole


@settings(deadline=None)
@given(st.text(st.sampled_from("\ud83d\ude00\ud800\udfffa\U0001f600"), max_size=12), st.integers(1, 4))
def test_a_text_is_made_whole_as_utf16_has_it_however_it_comes(text: str, step: int) -> None:
    characters = WholeCharacters()
    pieces = [characters.feed(text[start : start + step]) for start in range(0, len(text), step)]
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert "".join(pieces) + characters.end() == whole_characters(text) == expected


@pytest.mark.parametrize("make_whole", [whole_characters, of_a_field])
def test_halves_are_replaced_piece_by_piece(monkeypatch: pytest.MonkeyPatch, make_whole: Callable[[str], str]) -> None:
    """A million of them had been replaced at once in 150 ms, for which all threads waited."""
    lengths: list[int] = []
    lone = halves._LONE

    class Noted:
        @staticmethod
        def sub(by: str, text: str) -> str:
            lengths.append(len(text))
            return lone.sub(by, text)

    monkeypatch.setattr(halves, "_LONE", Noted)
    text = "a" + "\ud83d\udc69" * 1500 + "\ud83da" * 2001 + "\ud83d"
    assert make_whole(text) == "a" + "\U0001f469" * 1500 + "\ufffda" * 2001 + "\ufffd"
    assert sum(lengths) == len(text) - 1
    assert max(lengths) == AT_ONCE
