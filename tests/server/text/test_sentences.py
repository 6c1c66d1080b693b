"""Where texts may be cut, language by language."""

from __future__ import annotations

import pytest

from server.text import sentences
from server.text.sentences import Boundary, cuts, ends_whole

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


@pytest.mark.parametrize("between", [".\n\nNext", "\r\n \r\nnext", "\n\n\n- Next", "。”\n\n下", "\u2029\n2"])
def test_a_blank_line_ends_a_paragraph(between: str) -> None:
    text = f" \n\n A headline{between} line\n\n"
    found = list(cuts(text, "en"))
    assert [cut.boundary for cut in found] == [Boundary.PARAGRAPH, Boundary.TEXT]
    assert found[-1].offset == len(text.rstrip())


@pytest.mark.parametrize("between", ["\nNext", "\n- next", "\r\nnext", " \n 42", "\n“Next”", "\u2028Next"])
def test_a_single_line_break_is_a_blank(between: str) -> None:
    assert [cut.boundary for cut in cuts(f"A wrapped{between} line", "en")] == [Boundary.TEXT]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["The answer is 7.", "The next one is 8."]),
        ("en", ["See page 7.", "Read it."]),
        ("en", ["We follow plan B.", "Next, we rest."]),
        ("en", ["He chose option A.", "They chose option B.", "That was wrong."]),
        ("en", ["Turn to chapter 12.", "Begin."]),
        (None, ["The answer is 7.", "The next one is 8."]),
        ("fr", ["Voir page 7.", "Lisez la suite."]),
        ("es", ["Está en la página 7.", "Sigue leyendo."]),
        ("ru", ["Смотри на странице 7.", "Дальше просто."]),
    ],
)
def test_numbers_and_letters_end_sentences(language: str | None, expected: list[str]) -> None:
    assert pieces(" ".join(expected), language) == expected


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Das ist die 2. Auflage des Buches."),
        ("de", "Am 31. Dezember endet das Jahr."),
        (None, "Das ist die 2. Auflage des Buches."),
        ("cs", "Dne 3. října přišel domů."),
        ("da", "Den 3. Oktober kom han hjem."),
        ("fr", "M. Dupont est arrivé."),
        ("fr", "Je connais bien M. Dupont."),
        ("en", "I have met John F. Kennedy."),
        ("en", "1. Open the door."),
        ("en", "A. Open the door."),
    ],
)
def test_ordinals_initials_and_numbers_of_items_end_none(language: str | None, text: str) -> None:
    assert pieces(text, language) == [text]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "It costs approx. nine dollars."),
        ("en", "Approx. 9 of them are here."),
        ("en", "It is approx. Nothing else."),  # which may be two: one that is too long is no harm
        ("en", "See figs. 4 and 5, vol. 6, ch. 7, eq. 8, ed. Smith, est. 1999, tel. 555, max. 3."),
        ("en", "We took 5 kg. of it, 10 lbs. and 9 oz. more."),
        ("de", "Siehe Abb. 3, Bd. 2 inkl. Mehrwertsteuer, max. 9 Stück, zzgl. Versand."),
        ("de", "Im 19. Jh. war das so."),
        ("fr", "Voir max. 9, vol. 3 et Mme. Dupont."),
        ("es", "Hay aprox. 5 de ellos, máx. 9."),
        ("it", "Vedi pag. 9, pagg. 10 e num. 3."),
        ("pt", "Ver pág. 9, vol. 2, cap. 3, máx. 8."),
        ("ru", "Население 5 млн. человек, рис. 5, т.е. Много."),
        (None, "It costs approx. nine dollars."),
    ],
)
def test_abbreviations_end_none(language: str | None, text: str) -> None:
    assert pieces(text, language) == [text]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["I saw Max.", "He was late."]),
        ("en", ["It weighs 5 kg.", "Nobody lifts it."]),
        ("en", ["It took 3 hrs.", "“Why?” she asked."]),
        ("de", ["Das war im 19. Jh.", "Danach kam mehr."]),
        ("pt", ["Comprei pão, leite etc.", "Depois fui."]),
        ("ru", ["Он помог им.", "Потом ушёл."]),
        ("ru", ["Это стоит 5 млн.", "Никто не купил."]),
    ],
)
def test_what_is_spelt_like_one_ends_a_sentence(language: str, expected: list[str]) -> None:
    assert pieces(" ".join(expected), language) == expected


@pytest.mark.parametrize("whole", ["It was late.", "It weighs 5 kg.", "“Was it?”"])
def test_a_text_ends_with_a_sentence(whole: str) -> None:
    assert ends_whole(whole, "en")


@pytest.mark.parametrize("text", ["It was", "It is approx.", "This is Mr.", "", "..."])
def test_a_text_ends_in_the_middle_of_one(text: str) -> None:
    assert not ends_whole(text, "en")


def test_a_doubtful_end_is_one_where_the_choice_is_a_cut_between_words() -> None:
    text = "Auf diesem Bild sehen wir eine schöne alte Ausgabe der 2. Das Jahr war lang und kalt und dunkel"
    assert [cut.boundary for cut in cuts(text, "de")] == [Boundary.DOUBTFUL, Boundary.TEXT]


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
def test_a_text_is_cut_at_clauses(text: str, expected: list[str]) -> None:
    assert pieces(text, None, Boundary.CLAUSE) == expected
