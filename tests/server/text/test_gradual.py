"""A text that arrives over time is prepared as the whole of it is."""

from __future__ import annotations

import sys
from functools import partial
from types import FrameType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.text.alphabet import adapted
from server.text.gradual import MOST_HELD, Gradual, Preparation
from server.text.lexicon import Lexicon, lexicon_of
from server.text.lines import PARAGRAPH
from server.text.locators import spoken_links
from server.text.prepare import Prepared, Steps, prepare
from tests.server.text.written import CLEAN

ALPHABET = " !\"$%&'(),-./0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LEXICON = lexicon_of(
    {"New York": "the Big Apple", "GIF": "jif", "new": "novel", "nginx": "engine x", "天气": "weather"}
)
NO_WORDS = Lexicon()
PLAIN = (
    *(
        "we",
        "went",
        "there",
        "It",
        "was",
        "fine.",
        "and",
        "so",
        "on",
        "He's",
        "it's",
        "I",
        "know,",
        "Then",
        "why?",
        "Oh!",
    ),
    *("the", "early", "of", "New", "York", "new", "nginx", "may", "be", "you:", "in", "a", "minute;", "cup", "late"),
)
ODD = (
    *(
        "May",
        "5,",
        "1999",
        "Dr.",
        "$5",
        "3",
        "p.m.",
        "FBI",
        "https://example.org/a",
        "a@example.org",
        "10%",
        "GIF",
        "-",
    ),
    *(
        "—",
        '"Well,"',
        "(yes)",
        "1/2",
        "今天天气，",
        "怎么样。",
        "über",
        "naïve",
        "👩\u200d👩\u200d👧",
        "...",
        "????",
        "=",
    ),
    *("a\u00adb", "\u200b", "x", "*", "</b", "w\u3000w", "\u00a0", "1.", "2)"),
)
WRITTEN = (
    "We saw 3 lbs. of it vs. two in the early 90s, and it was one half cup.",
    "It costs $5 million or 3 oz. on Jan. 6 at 5 p.m. in the morning, and then some.",
    "Dr. Smith of St. John Street met Henry VIII in World War II, see p. 7. The FBI was late.",
    "She went there on May 5, 1999 and saw it again in 2003 people or so, I know.",
    "WARNING! DO NOT OPEN THE DOOR. Open it. 2. Close it! 3 of 4 and then we all came home again.",
    "Wait... what? So.. “Well…” he said, and e-mailed bob@example.org about report.pdf again and again.",
)


def prepared(text: str, begins_line: bool, ends_line: bool, *, spelt: bool, lexicon: Lexicon) -> Prepared:
    fold = partial(adapted, alphabet=ALPHABET, language="en", begins_line=begins_line, ends_line=ends_line)
    links = partial(spoken_links, language="en")
    return prepare(text, ["english"], Steps(lexicon=lexicon.apply, links=links, alphabet=fold if spelt else None))


def parts_of(parts: list[str], *, spelt: bool, lexicon: Lexicon = NO_WORDS) -> list[str]:
    gradual = Gradual(Preparation(partial(prepared, spelt=spelt, lexicon=lexicon), lexicon, spelt, "en"))
    return [said for part in parts for said in gradual.feed(part)] + gradual.end()


def paragraphs(parts: list[str]) -> list[str]:
    return [said for said in "".join(parts).split(PARAGRAPH) if said]


def whole(text: str, *, spelt: bool, lexicon: Lexicon = NO_WORDS) -> list[str]:
    done = prepared(text, True, True, spelt=spelt, lexicon=lexicon).text
    return done.split(PARAGRAPH) if done else []


def texts_of(words: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.lists(st.lists(st.sampled_from(words), min_size=1, max_size=12).map(" ".join), max_size=3).map(
        "\n\n".join
    )


def check(text: str, size: int, *, spelt: bool, worded: bool) -> None:
    lexicon = LEXICON if worded else Lexicon()
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    assert paragraphs(parts_of(parts, spelt=spelt, lexicon=lexicon)) == whole(text, spelt=spelt, lexicon=lexicon)


@settings(max_examples=400, deadline=None)
@example(text="wrapped\nlines of it", size=1, worded=False)
@example(text="今天\n天气", size=1, worded=True)
@given(text=texts_of(PLAIN + ODD), size=st.integers(1, 9), worded=st.booleans())
def test_it_is_prepared_as_the_whole_is(text: str, size: int, worded: bool) -> None:
    check(text, size, spelt=False, worded=worded)


@settings(max_examples=300, deadline=None)
@given(text=texts_of(PLAIN), size=st.integers(1, 9), worded=st.booleans())
def test_plain_words_reach_a_model_with_an_alphabet_as_those_of_the_whole(text: str, size: int, worded: bool) -> None:
    check(text, size, spelt=True, worded=worded)


@pytest.mark.parametrize("text", [*WRITTEN, *CLEAN.values()])
@pytest.mark.parametrize("spelt", [False, True])
def test_written_forms_are_not_cut(text: str, spelt: bool) -> None:
    for size in (1, 5):
        check(text, size, spelt=spelt, worded=False)


def test_a_word_is_certain_when_the_next_one_has_begun() -> None:
    assert parts_of(["Well,", " it", " is", " the", " new", " York", " we", " know"], spelt=False, lexicon=LEXICON) == [
        *("Well,", " it", " is", " the"),
        *(" novel York", " we"),
        *(" know", PARAGRAPH),
    ]


def test_a_plain_word_of_a_model_with_an_alphabet_is_certain_two_words_later() -> None:
    parts = parts_of(["Sure, ", "we ", "can ", "help ", "you ", "with 5 of them ", "today ", "then "], spelt=True)
    assert parts == ["Sure,", " we", " can", " help", " you with five of", " them", " today then.", PARAGRAPH]


@pytest.mark.parametrize("spelt", [False, True])
def test_what_is_never_certain_is_bounded(spelt: bool) -> None:
    parts = parts_of(["x1y2" * MOST_HELD], spelt=spelt)
    assert len(parts) == 5


@pytest.mark.parametrize("spelt", [False, True])
def test_a_lexicon_is_asked_once_for_each_place_between_two_words(spelt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place had been asked for anew with every 100 characters: 200 of them took seconds of the event loop."""
    asked: list[str] = []
    may_go_on = Lexicon.may_go_on

    def noted(self: Lexicon, text: str) -> bool:
        asked.append(text)
        return may_go_on(self, text)

    monkeypatch.setattr(Lexicon, "may_go_on", noted)
    lexicon = lexicon_of({f"a b{number}": "x" for number in range(10)})
    gradual = Gradual(Preparation(lambda text, *_: prepare(text, ("english",), Steps()), lexicon, spelt, "en"))
    assert gradual.feed("a " * 400) == [], "an entry may go on behind each of the words"
    assert 300 < len(asked) <= 400


def test_many_entries_that_begin_alike_are_not_looked_at_one_by_one() -> None:
    lexicon = lexicon_of({f"a b{number}": "x" for number in range(1000)})
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        found = [lexicon.may_go_on(text) for text in ("a ", "a b", "a b99", "a b999", "a c", "a a a ", "b ", "a")]
    finally:
        sys.setprofile(None)
    assert found == [True, True, True, False, False, True, False, True]
    assert calls < 500
