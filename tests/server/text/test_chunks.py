"""Chunks: whole words, alike in size, nothing lost, little done ahead."""

from __future__ import annotations

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.text.chunks import FIRST_TOKENS, MAX_TOKENS, MIN_TOKENS, chunks
from server.text.sentences import Boundary

ENGLISH = (
    "It was late, and nobody came. The train had left at 10:30; the next one, they said, would cost $1,234.50. Why? "
)
CHINESE = "今天天气很好，我们去公园吧。路上有很多人，有的在跑步，有的在唱歌！你说：“走吧。”于是我们出发了"

LETTER = r"[\p{L}\p{M}\p{N}--[\p{Han}\p{Hiragana}\p{Katakana}ー]]"
WORD = regex.compile(rf"{LETTER}+(?:[.,:;'’/_@&%+\-．，：]*{LETTER}+)*", regex.V1)


def a_word_a_token(text: str) -> int:
    return len(regex.findall(r"\p{Han}|[\p{L}\p{N}]+|\p{P}", text))


def four_a_character(text: str) -> int:
    """So that a text is long in no time."""
    return 4 * len(text)


def bare(text: str) -> str:
    return "".join(text.split())


def starts(text: str, parts: list[str]) -> list[int]:
    """Offsets of the parts after the first, each found where the one before ends."""
    found, end = [], 0
    for part in parts:
        start = text.index(part, end)
        assert not text[end:start].strip()
        found.append(start)
        end = start + len(part)
    assert not text[end:].strip()
    return found[1:]


LATIN = ["one ", "two, ", "naïve ", "e\u0301", "it's", "don't.", " ", ". ", "! ", "…", "— ", "\n\n", "\n"]
UNSPACED = ["你好", "。", "，", "「はい」", "きゃっ", "コーヒー"]
OTHERS = ["3.14 ", "1,234,567", "12:30", "한국어 ", "да; ", "🇩🇪", "👩\u200d👧"]
FRAGMENTS = st.sampled_from([*LATIN, *UNSPACED, *OTHERS])
# Texts come without information separators (server/text/clean.py), which are blanks to Python, but not by Unicode.
LETTERS = st.characters(exclude_characters="\x1c\x1d\x1e\x1f", exclude_categories=["Cs"])
TEXTS = st.lists(FRAGMENTS | st.text(LETTERS, max_size=4), min_size=1, max_size=60).map("".join).filter(str.strip)


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["en", "zh", "ja", "de", "fr", None]))
@example("a" * 200, "en")
@example("a!b" * 100, None)
@example("\r\n\u2028" + "你" * 100 + "\r\n\r\n", None)
@example("e" + "\u0301" * 100, "fr")
@example("\n" * 100 + "1,234,567," * 2 + " " * 100 + "one", "en")
def test_nothing_is_lost_and_nothing_is_torn(text: str, language: str | None) -> None:
    parts = list(chunks(text, language, four_a_character))
    texts = [part.text for part in parts]
    assert bare("".join(texts)) == bare(text)
    assert [part.boundary for part in parts].count(Boundary.TEXT) == 1
    assert parts[-1].boundary is Boundary.TEXT

    clusters = [bare(cluster) for cluster in regex.findall(r"\X", text)]
    assert list(filter(None, clusters)) == [c for t in texts for c in map(bare, regex.findall(r"\X", t)) if c]
    for part in parts:
        assert part.text.strip()
        assert part.tokens <= MAX_TOKENS or len(regex.findall(r"\X", part.text)) == 1
    if len(parts) > 1:
        torn = [word for word in WORD.finditer(text) for cut in starts(text, texts) if word.start() < cut < word.end()]
        assert all(four_a_character(f" {word[0]}") > MAX_TOKENS - MIN_TOKENS for word in torn)


@settings(deadline=None)
@given(TEXTS)
def test_a_paragraph_that_is_short_enough_is_one_chunk(text: str) -> None:
    found = [chunk.text for chunk in chunks(text, None, lambda piece: len(piece) // 10)]
    normal = regex.sub(r"\r\n|[\v\f\x85\u2028\u2029\r]", "\n", text)
    expected = [part.strip() for part in regex.split(r"\s*\n\s*\n\s*", normal) if part.strip()]
    assert list(map(bare, found)) == list(map(bare, expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello.\n\nBye.", ["Hello.", "Bye."]),
        ("Chapter One\n\nThe Storm\n\nIt rained.", ["Chapter One", "The Storm", "It rained."]),
        ("你好。\n\n再见。", ["你好。", "再见。"]),
    ],
)
def test_a_paragraph_is_a_cut_at_any_length(text: str, expected: list[str]) -> None:
    found = list(chunks(text, None, a_word_a_token))
    assert [chunk.text for chunk in found] == expected
    assert [chunk.boundary for chunk in found] == [Boundary.PARAGRAPH] * (len(expected) - 1) + [Boundary.TEXT]


@pytest.mark.parametrize("most", [1, 7, 40])
def test_chunks_may_be_smaller(most: int) -> None:
    found = list(chunks(ENGLISH * 5, "en", a_word_a_token, most))
    assert max(chunk.tokens for chunk in found) <= most
    assert bare("".join(chunk.text for chunk in found)) == bare(ENGLISH * 5)


@pytest.mark.parametrize(("text", "language"), [(ENGLISH, "en"), (ENGLISH, None), (CHINESE, "zh"), (CHINESE, None)])
def test_chunks_are_sentences_alike_in_size(text: str, language: str | None) -> None:
    first, *others = chunks(text * 40, language, a_word_a_token)
    assert MIN_TOKENS <= first.tokens <= 2 * FIRST_TOKENS
    assert first.boundary >= Boundary.CLAUSE
    assert all(MAX_TOKENS / 2 <= chunk.tokens <= MAX_TOKENS for chunk in others)
    assert all(chunk.boundary >= Boundary.SENTENCE for chunk in others)


def test_the_last_chunk_is_no_leftover() -> None:
    for words in range(MAX_TOKENS + 1, 4 * MAX_TOKENS):
        _, *others = chunks("word " * words, "en", a_word_a_token)
        assert sum(chunk.tokens for chunk in others) > words - 2 * FIRST_TOKENS
        assert all(chunk.tokens >= MAX_TOKENS / 3 for chunk in others)


def test_a_paragraph_is_a_better_end_than_a_sentence() -> None:
    sentence = "one two three four five six seven eight nine. "
    paragraph = sentence * 9 + "\n\n"
    parts = list(chunks(paragraph * 10, "en", a_word_a_token))
    assert [part.boundary for part in parts[1:-1]].count(Boundary.PARAGRAPH) >= 8


def test_an_overlong_sentence_is_cut_at_its_clauses() -> None:
    clause = "and so they went on and on, "
    parts = list(chunks(clause * 100, "en", a_word_a_token))
    assert all(part.text.endswith(",") for part in parts)
    assert len(parts) > 5


def test_a_doubtful_end_is_better_than_a_cut_between_words() -> None:
    found = list(chunks("Am Abend kamen viele Leute in das alte Haus mit der Nummer 7. " * 40, "de", a_word_a_token))
    assert len(found) > 3
    assert {chunk.boundary for chunk in found} == {Boundary.DOUBTFUL, Boundary.TEXT}


def test_a_clear_end_is_better_than_a_doubtful_one() -> None:
    text = "Am Abend kamen viele in das alte Haus mit der Nummer 7. Dann gingen sie alle wieder fort. " * 40
    assert all(chunk.text.endswith("fort.") for chunk in chunks(text, "de", a_word_a_token))


def test_without_punctuation_between_words_or_characters() -> None:
    assert all(set(part.text.split()) == {"word"} for part in chunks("word " * 500, "en", a_word_a_token))
    unbroken = "我们在二千零二十四年用Google查了コーヒーの値段を3.14円くらいで買っちゃった" * 20
    for part in list(chunks(unbroken, "ja", lambda text: 2 * len(text)))[1:]:
        assert not regex.match(r"[ゃっー〇零十千四]|oogle|\.|\d4", part.text)
        assert part.boundary in (Boundary.CHARACTER, Boundary.TEXT)


def test_the_first_chunk_comes_before_the_text_is_read() -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return a_word_a_token(text)

    text = ENGLISH * 1000
    iterator = chunks(text, "en", count)
    next(iterator)
    assert sum(map(len, counted)) < 20 * MAX_TOKENS
    assert len(list(iterator)) > 100
    assert sum(map(len, counted)) <= len(text) + 1


@pytest.mark.parametrize("unit", [ENGLISH, CHINESE, "x", "。", "“Hi. ", "' ", "a\n", "\t\v", "e\u0301", "3.1", "👍🏽"])
def test_the_work_grows_with_the_length_only(unit: str) -> None:
    def counted(length: int) -> int:
        total = 0

        def count(text: str) -> int:
            nonlocal total
            total += len(text)
            return len(text)

        for _ in chunks("Oh. " + (unit * length)[:length], None, count):
            pass
        return total

    assert counted(100_000) <= 12 * counted(10_000) <= 12 * 60_000


SENTENCE = Boundary.SENTENCE


def test_each_sentence_may_be_a_chunk_of_its_own() -> None:
    text = "Yes. It was late, and nobody came. Why?\n\nDr. Smith left. So did I."
    found = list(chunks(text, "en", a_word_a_token, last=SENTENCE))
    assert [chunk.text for chunk in found] == [
        "Yes.",
        "It was late, and nobody came.",
        "Why?",
        "Dr. Smith left.",
        "So did I.",
    ]
    assert [chunk.boundary for chunk in found] == [
        *(SENTENCE, SENTENCE, Boundary.PARAGRAPH, SENTENCE, Boundary.TEXT)
    ]  # fmt: skip
    assert len(list(chunks(text, "en", a_word_a_token))) == 2


@pytest.mark.parametrize("text", ["Hello there. ...", "... Hello there.", "Hello there. ! ? ! ?", "“Hello there.” ..."])
def test_marks_alone_are_no_sentence(text: str) -> None:
    assert [chunk.text for chunk in chunks(text, "en", a_word_a_token, last=SENTENCE)] == [text]


def test_a_sentence_that_is_too_long_is_cut_all_the_same() -> None:
    long = "one thing, " * MAX_TOKENS + "the end."
    found = [chunk.text for chunk in chunks(f"Hello there. {long} Bye.", "en", a_word_a_token, last=SENTENCE)]
    assert found[0] == "Hello there."
    assert found[-1] == "Bye."
    assert max(map(a_word_a_token, found)) <= MAX_TOKENS
    assert " ".join(found[1:-1]) == long


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["en", "zh", "ja", "de", "fr", None]))
def test_sentences_lose_nothing_either(text: str, language: str | None) -> None:
    parts = list(chunks(text, language, a_word_a_token, last=SENTENCE))
    assert bare("".join(part.text for part in parts)) == bare(text)
    assert [part.boundary for part in parts if part.boundary is Boundary.TEXT] == [parts[-1].boundary]
