"""Silence tags."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.text.tags import (
    MAX_SILENCE_SECONDS,
    STRENGTHS,
    Part,
    Silence,
    Spoken,
    TagError,
    TagStream,
    last_voice,
    parse,
    samples,
    says_something,
)


def silence(seconds: str) -> Silence:
    return Silence(Decimal(seconds))


@pytest.mark.parametrize(
    ("tag", "seconds"),
    [
        ("[1s]", "1"),
        ("[0.5s]", "0.5"),
        ("[007.250s]", "7.25"),
        ("[0s]", "0"),
        ("[.5s]", "0.5"),
        ("[0,5s]", "0.5"),
        ("[500ms]", "0.5"),
        ("[1S]", "1"),
        ("[ 1s ]", "1"),
        ("[1 s]", "1"),
        ("[1sec]", "1"),
        ("[2 seconds]", "2"),
        ("[pause:0.5s]", "0.5"),
        ("[pause:12s]", "12"),
        ("[pause 1s]", "1"),
        ("[pause: 1s]", "1"),
        ("[pause=1s]", "1"),
        ("[Pause:500ms]", "0.5"),
        ("[silent 1s]", "1"),
        ("[PAUSE]", "0.75"),
        ('<break time="500ms"/>', "0.5"),
        ('<break time="0.5ms"/>', "0.0005"),
        ('<break time="1.5s"/>', "1.5"),
        ("<break time='2s' />", "2"),
        ('<break\n  time = " 250ms " />', "0.25"),
        ("<break time='.5s'/>", "0.5"),
        ('<break time="+1s"/>', "1"),
        ('<break time="1s"></break>', "1"),
        ('<break time="1s"> </break >', "1"),
        ('<break time="1s">', "1"),
        ('<BREAK TIME="1S"/>', "1"),
        ("<break/>", "0.75"),
        ("<break />", "0.75"),
        ("<break></break>", "0.75"),
        *((f'<break strength="{strength}"/>', str(seconds)) for strength, seconds in STRENGTHS.items()),
        ("<break strength='Strong' time='2s'/>", "2"),
        ('<break time="2s" strength="weak"/>', "2"),
    ],
)
def test_a_tag_is_silence_wherever_it_stands(tag: str, seconds: str) -> None:
    assert parse(tag) == [silence(seconds)]
    assert parse(f"Hello, {tag}world.") == [Spoken("Hello, "), silence(seconds), Spoken("world.")]
    assert parse(f"{tag}Hello{tag}") == [silence(seconds), Spoken("Hello"), silence(seconds)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "...",
        "Hello",
        "[abc]",
        "[s]",
        "[1.s]",
        "[-1s]",
        "[+1s]",
        "[1e3s]",
        "[5]",
        "[5m]",
        "[٣s]",
        "[pause1s]",
        "[paused]",
        "[1s",
        "1s]",
        "<break time=1s/>",
        "<break time=\"1s'/>",
        '<break time="1"/>',
        '<break time="soon"/>',
        '<breaktime="1s"/>',
        '<break strength="loud"/>',
        "<breaks/>",
        "[voice]",
        "[voice:]",
        "[voice: ]",
        "[voice:a\nb]",
        f"[voice:{'a' * 257}]",
    ],
)
def test_what_only_looks_like_a_tag_is_text(text: str) -> None:
    assert parse(text) == [Spoken(text)]


def test_adjacent_silences_add() -> None:
    assert parse('a[0.1s][0.2s] \n[pause:1s]<break time="1ms"/>b') == [Spoken("a"), silence("1.301"), Spoken("b")]


def test_punctuation_that_a_tag_leaves_alone_is_not_spoken() -> None:
    assert parse("Breathe in [4s]. [2s]… Breathe out [1s].") == [
        Spoken("Breathe in "),
        silence("6"),
        Spoken("… Breathe out "),
        silence("1"),
    ]
    assert parse("5 [1s] %") == [Spoken("5 "), silence("1")]
    assert parse("5 [1s] 😊 =") == [Spoken("5 "), silence("1")]


def test_markup_is_read_in_the_whole_text_and_leaves_the_tags() -> None:
    seen: list[str] = []

    def without_elements(text: str) -> str:
        seen.append(text)
        return re.sub(r"<!--.*?-->|<[^<>]*>|\[[^\[\]]*\]", "", text)

    text = '<speak>One <break time="1s"/>two <!-- [9s] --><b>[voice:a]three[2s]</b> [note]</speak>'
    assert parse(text, without_elements) == [
        Spoken("One "),
        silence("1"),
        Spoken("two "),
        Spoken("three", "a"),
        silence("2"),
    ]
    assert len(seen) == 1
    assert parse("<p>plain</p>", without_elements) == [Spoken("plain")]


def test_what_looks_like_a_mark_of_ours_is_none() -> None:
    assert parse("a\ufdee0\ufdefb") == [Spoken("a0b")]
    assert parse("a\ufdee0\ufdefb[1s]c") == [Spoken("a0b"), silence("1"), Spoken("c")]


@pytest.mark.parametrize(
    ("tag", "voice"),
    [
        ("[voice:af_heart]", "af_heart"),
        ("[voice: Uncle Fu ]", "Uncle Fu"),
        ("[VOICE:alloy]", "alloy"),
        ("[voice:af_bella(2)+af_sky(1)]", "af_bella(2)+af_sky(1)"),
        ("[voice:小明]", "小明"),
    ],
)
def test_a_voice_holds_from_its_tag_on(tag: str, voice: str) -> None:
    assert parse(f"One. {tag}Two. [1s] Three. [voice:b] Four.") == [
        Spoken("One. "),
        Spoken("Two. ", voice),
        silence("1"),
        Spoken(" Three. ", voice),
        Spoken(" Four.", "b"),
    ]
    assert parse(f"{tag}Hello") == [Spoken("Hello", voice)]


def test_a_voice_that_says_nothing_parts_nothing() -> None:
    assert parse("One [voice:b]... [voice:a]two [voice:a]three[voice:c]!") == [
        Spoken("One "),
        Spoken("two three", "a"),
    ]
    assert parse("[1s][voice:b][1s]") == [silence("2")]


@pytest.mark.parametrize(
    "text",
    [
        f"[{MAX_SILENCE_SECONDS + 1}s]",
        f"[{MAX_SILENCE_SECONDS}.0001s]",
        f"a[{MAX_SILENCE_SECONDS - 1}s]b[1s]c[0.001s]",
        f"[{'9' * 10_000}s]",
        f'<break time="{MAX_SILENCE_SECONDS}001ms"/>',
    ],
)
def test_more_silence_than_allowed_is_an_error(text: str) -> None:
    with pytest.raises(TagError, match=f"more than {MAX_SILENCE_SECONDS} seconds"):
        parse(text)


def test_as_much_silence_as_allowed_is_none() -> None:
    assert parse(f"[{MAX_SILENCE_SECONDS - 1}.5s]a[0.5s]")[-1] == silence("0.5")
    assert parse(f"[0.{'0' * 5000}1s]") == [silence(f"0.{'0' * 5000}1")]


@pytest.mark.parametrize(
    ("seconds", "rate", "expected"),
    [
        ("0", 24_000, 0),
        ("0.5", 24_000, 12_000),
        ("0.1", 24_000, 2400),
        ("0.29", 24_000, 6960),  # as floats, 0.29 * 24000 is less
        ("0.0000208", 24_000, 0),
        ("0.0000209", 24_000, 1),
        ("0.5", 44_101, 22_051),
        ("299.999958", 24_000, 7_199_999),
    ],
)
def test_silence_is_exact_to_the_sample(seconds: str, rate: int, expected: int) -> None:
    assert samples(Decimal(seconds), rate) == expected


WORDS = st.text(st.sampled_from("ab Ü.,[]<>/s15:\n"), max_size=12)
TAGS = st.builds(lambda n, f: f"[{n}.{f}s]", st.integers(0, 5), st.sampled_from(["0", "5", "125"]))


@given(st.lists(WORDS | TAGS, max_size=12).map("".join))
def test_parts_are_the_text_without_its_tags(text: str) -> None:
    parts = parse(text)
    assert all(type(one) is not type(next_one) for one, next_one in pairwise(parts))
    at = 0
    for part in parts:
        if isinstance(part, Spoken):
            at = text.index(part.text, at) + len(part.text)
            assert parse(part.text) == [Spoken(part.text)]


def streamed(parts: list[str]) -> list[Part | TagError]:
    """What a stream gives, parts of the same kind and voice joined."""
    stream = TagStream()
    found: list[Part | TagError] = []
    for part in [*(part for text in parts for part in stream.feed(text)), *stream.end()]:
        last = found[-1] if found else None
        if isinstance(part, Spoken) and isinstance(last, Spoken) and part.voice == last.voice:
            found[-1] = Spoken(last.text + part.text, part.voice)
        else:
            found.append(part)
    return found


BROKEN = st.sampled_from(
    ["[", "<", "<break", " time='1s'", ">", "</break>", "/>", "[pau", "se", "]", "a < b", "[0.", "5s]"]
)


@example(parts=["<break>", "</break>", " one"])
@given(st.lists(WORDS | TAGS | BROKEN | st.sampled_from(["[voice:a] x", "[voice:b"]), max_size=12))
def test_a_text_that_arrives_over_time_comes_apart_as_the_whole(parts: list[str]) -> None:
    text = "".join(parts)
    whole = [part for part in streamed([text]) if not isinstance(part, Spoken) or part.text]
    assert streamed(parts) == streamed(list(text)) == whole
    said = [part for part in parse(text) if isinstance(part, Silence)]
    assert sum((part.seconds for part in whole if isinstance(part, Silence)), Decimal(0)) == sum(
        (part.seconds for part in said), Decimal(0)
    )


@pytest.mark.parametrize(
    ("text", "says", "voice"),
    [
        ("[voice:ann]", False, "ann"),
        ("[voice: ann ] [VOICE:bob]...\n", False, "bob"),
        ("[voice:ann] so [voice: bob]", True, "bob"),
        ("[voice:ann] [1s]", True, "ann"),
        ("[voice:]", True, None),
        ("so", True, None),
        ("🙂", False, None),
    ],
)
def test_what_is_said_beside_voice_tags(text: str, says: bool, voice: str | None) -> None:
    assert (says_something(text), last_voice(text)) == (says, voice)


def test_only_what_may_be_a_tag_is_held_back() -> None:
    stream = TagStream()
    assert stream.feed("a < b [x] and [0.5") == [Spoken("a < b [x] and ")]
    assert stream.feed("s] [voice: ann] it") == [silence("0.5"), Spoken(" "), Spoken(" it", "ann")]
    assert stream.feed("[" + "1" * 400) == [Spoken("[" + "1" * 400, "ann")]
    [before, error, after] = stream.feed("two [300s] three")
    assert (before, after) == (Spoken("two ", "ann"), Spoken(" three", "ann"))
    assert isinstance(error, TagError)


@given(st.lists(st.tuples(st.sampled_from(["One.", " two, ", "3\n", "四"]), st.integers(0, 20_000)), min_size=1))
def test_what_is_put_together_comes_apart(pieces: list[tuple[str, int]]) -> None:
    pieces = [(text, milliseconds % (1000 * MAX_SILENCE_SECONDS // len(pieces))) for text, milliseconds in pieces]
    text = "".join(f"{text}[{milliseconds // 1000}.{milliseconds % 1000:03}s]" for text, milliseconds in pieces)
    expected: list[Part] = []
    for spoken, milliseconds in pieces:
        expected += [Spoken(spoken), Silence(Decimal(milliseconds) / 1000)]
    assert parse(text) == expected


@pytest.mark.parametrize(
    "unit",
    [
        *("[", "[ ", "[1", "[1 ", "[1.1", "[pause:", "[pause ", "[voice:", "[voice:a", "]", " ", "1"),
        *("<break ", "<break time", "<break time = ", "<break time='1s' ", "<break a='", f"[{' ' * 1000}"),
    ],
)
def test_no_text_takes_long(unit: str) -> None:
    text = unit * (200_000 // len(unit))  # in quadratic time, ten minutes
    assert parse(text) == [Spoken(text)]
