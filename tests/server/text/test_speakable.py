"""What can be said, and in whose letters."""

from __future__ import annotations

import pytest

from server.text.speakable import Letters, is_speakable, letters

TEN = ("chinese", "english", "japanese", "korean", "german", "french", "russian", "portuguese", "spanish", "italian")


@pytest.mark.parametrize("text", ["a", "...7", "「あ」", "한", "(é)", "½", "٣", "①", "𝐇", "Ω"])
def test_a_letter_or_a_digit_can_be_said(text: str) -> None:
    assert is_speakable(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "...",
        "—",
        "*",
        "()",
        "---",
        "?!",
        "###",
        "😊",
        "👩\u200d👧",
        "\u200b",
        "\ufeff\x00",
        "ㅤ",
        "%",
        "。",
        "❤️",
    ],
)
def test_marks_emoji_and_fillers_cannot(text: str) -> None:
    assert not is_speakable(text)


@pytest.mark.parametrize(
    ("languages", "text", "foreign"),
    [
        (("english",), "Hello there, naïve José 1939!", 0),
        (("english",), "你好", 2),
        (("English",), "Москва", 6),
        (("english", "german"), "مرحبا", 5),
        (("english",), "We met in 東京 last май.", 5),
        (("chinese",), "你好 Google", 0),
        (("beijing_dialect",), "你好", 0),
        (("chinese",), "ひらがな", 4),
        (("japanese",), "漢字とカナー", 0),
        (("korean",), "한국어 漢字", 0),
        (("russian", "english"), "Москва and London", 0),
        (TEN, "你好 ひ カ 한 Я é ß ñ", 0),
        (TEN, "नमस्ते", 4),
        (("thai",), "สวัสดี 你好", 0),
        ((), "你好", 0),
        (("english",), "12:30 😊 𝐇", 0),
    ],
)
def test_letters_of_scripts_that_no_language_writes(languages: tuple[str, ...], text: str, foreign: int) -> None:
    assert letters(text, languages).foreign == foreign


@pytest.mark.parametrize(
    ("found", "unreadable"),
    [((0, 0), False), ((10, 0), False), ((10, 5), False), ((10, 6), True), ((1, 1), True)],
)
def test_a_text_is_unreadable_if_most_of_it_is_foreign(found: tuple[int, int], unreadable: bool) -> None:
    assert Letters(*found).unreadable is unreadable
