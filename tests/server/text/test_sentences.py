"""Where texts may be cut, language by language."""

from __future__ import annotations

import pytest

from server.text import sentences
from server.text.sentences import Boundary, cuts

WORDS = "The quick brown fox jumps over it. "


def pieces(text: str, language: str | None, weakest: Boundary = Boundary.SENTENCE) -> list[str]:
    start, found = 0, []
    for cut in cuts(text, language):
        if cut.boundary >= weakest:
            found.append(text[start : cut.offset].strip())
            start = cut.offset
    return found


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["Dr. Smith paid $3.50 to Mr. Jones at 5 p.m. on Jan. 3rd.", "He left.", '"Really?" she asked.']),
        ("en", ["J. R. R. Tolkien, i.e. the author, wrote it.", "Version 1.2.3 of example.com is out!", "What?!"]),
        ("de", ["Am 3. Oktober kam Dr. Müller, z.B. mit dem Zug.", "Das ist die 2. Auflage zu 1.234,50 €.", "Ja!"]),
        ("fr", ["M. Dupont est arrivé à 5 h.", "Il a dit : « Bonjour. Ça va ? »", "Puis il est parti."]),
        ("es", ["El Sr. García llegó.", "¿Cómo está?", "¡Muy bien!", "Cuesta 3.50 dólares."]),
        ("it", ["Il sig. Rossi è arrivato.", "Come va?", "Il dott. Bianchi paga 3,50 €."]),
        ("pt", ["O Sr. Silva chegou às 5h.", "A Dra. Ana também.", "Custa R$ 3,50."]),
        ("ru", ["А. С. Пушкин родился в 1799 г. в Москве.", "Он был поэтом.", "Цена 3,5 руб. за кг."]),
        ("ko", ["안녕하세요.", "오늘은 3.5도입니다!", "정말요?"]),
    ],
)
def test_sentences_with_spaces_between_them(language: str, expected: list[str]) -> None:
    assert pieces(" ".join(expected), language) == expected


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("zh", ["你好。", "我叫小明！", "“他说：‘好的。’然后走了。”", "圆周率是3.14。"]),
        ("ja", ["今日はいい天気ですね。", "行きましょう！", "値段は3.5ドルです。"]),
        (None, ["你好。", "今日はいい天気ですね。"]),
    ],
)
def test_sentences_without_spaces(language: str | None, expected: list[str]) -> None:
    assert pieces("".join(expected), language) == expected


def test_a_text_longer_than_the_window_has_the_same_sentences() -> None:
    count = 5 * sentences.WINDOW // len(WORDS)
    assert pieces(WORDS * count, "en") == [WORDS.strip()] * count


def test_the_window_ends_no_sentence() -> None:
    one = "so much " * sentences.WINDOW + "for that."
    assert pieces(f"{one} {WORDS}", "en") == [one, WORDS.strip()]


@pytest.mark.parametrize(
    ("between", "boundary"),
    [
        (".\n\nNext", Boundary.PARAGRAPH),
        ("\r\n \r\nnext", Boundary.PARAGRAPH),
        (".\nNext", Boundary.PARAGRAPH),
        ("。”\n下", Boundary.PARAGRAPH),
        ("\n- Next", Boundary.SENTENCE),
        ("\u2028Next", Boundary.SENTENCE),
        ("\nnext", None),
        ("\r\nnext", None),
        (" \n next", None),
    ],
)
def test_line_breaks(between: str, boundary: Boundary | None) -> None:
    text = f" \n\n A headline{between} line\n\n"
    found = list(cuts(text, "en"))
    assert [cut.boundary for cut in found] == [*filter(None, [boundary]), Boundary.TEXT]
    assert found[-1].offset == len(text.rstrip())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one, two; three: four — five – six… seven", ["one,", "two;", "three:", "four —", "five –", "six…", "seven"]),
        ("1,234.5 at 10:30 well-known", ["1,234.5 at 10:30 well-known"]),
        ("我说，一、二；他说：“三，”好", ["我说，", "一、", "二；", "他说：", "“三，”", "好"]),
        ("１，２３４", ["１，２３４"]),
        ("He said (well, yes), “so,” no", ["He said (well,", "yes),", "“so,”", "no"]),
    ],
)
def test_clauses(text: str, expected: list[str]) -> None:
    assert pieces(text, None, Boundary.CLAUSE) == expected
