"""JSON of strangers: it is read as `json` reads it, up to a number of values."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequestError
from server.speech import bounded_json
from server.speech.bounded_json import MOST_VALUES, NoNumberError, TooMuchError, read_json
from server.speech.request_parsing import parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a"\\,:[{\n\u00e9', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\,:[{', max_size=4), inner, max_size=4),
)
MANY = MOST_VALUES + 1
FEWER = 10_000
"""So many are allowed where more are refused here, which takes a tenth of the time."""
BEYOND = FEWER + 1
TOO_MANY = {
    "numbers": f"[{'0,' * BEYOND}0]",
    "arrays": f"[{'[],' * BEYOND}0]",
    "objects": f"[{'{},' * BEYOND}0]",
    "nested arrays": f"{'[[],' * BEYOND}",
    "strings": '["",' + '"",' * BEYOND + "0]",
    "strings without commas": '""' * BEYOND,
    "keys": json.dumps({str(number): 0 for number in range(BEYOND // 2 + 1)}),
    "keys without commas": "{" + '"a":' * BEYOND,
    "behind strings with quotes": json.dumps(['"', '\\"', "\\", *[[]] * BEYOND]),
}
FEW = {
    "a text of marks": json.dumps({"input": ",:[{" * MANY}),
    "a text of quotes": json.dumps({"input": '"' * MANY}),
    "a text of backslashes": json.dumps({"input": "\\" * MANY}),
    "a text of escapes": json.dumps({"input": "\U0001f469" * MANY}),
    "an embedding": json.dumps({"speaker_embedding": [0.125] * 16_384}),
    "a batch of dictionaries": json.dumps(
        {"items": [{"input": "a", "lexicon": {f"w{number}": "a" for number in range(1000)}} for _ in range(32)]}
    ),
}


@given(JSON)
def test_it_reads_what_json_reads(value: object) -> None:
    assert read_json(json.dumps(value).encode()) == value
    assert read_json(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value


@given(st.text('"\\,:[]{}01a \n', max_size=20))
def test_it_refuses_what_json_refuses(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError as error:
        with pytest.raises(type(error)):
            read_json(text.encode())
    else:
        assert read_json(text.encode()) == expected


def test_json_has_no_nan() -> None:
    with pytest.raises(NoNumberError, match=r"^NaN$"):
        read_json(b'{"a": [NaN]}')


@pytest.mark.parametrize("text", TOO_MANY.values(), ids=TOO_MANY)
def test_a_text_of_very_many_values_is_refused_before_any_is_made(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_json, "MOST_VALUES", FEWER)
    data = text.encode()
    tracemalloc.start()
    try:
        with pytest.raises(TooMuchError):
            read_json(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 17
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", FEW.values(), ids=FEW)
def test_what_requests_have_is_read(text: str) -> None:
    assert read_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize("kind", ["arrays", "objects", "numbers"])
def test_a_request_of_very_many_values_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_json, "MOST_VALUES", FEWER)
    with pytest.raises(InvalidRequestError, match=f"the body is refused: it has more than {FEWER} values"):
        parse(f'{{"input": "Hello", "more": {TOO_MANY[kind]}}}'.encode())


RECORDING = "UklGR" * 40_000
STRINGS = {
    "base64": RECORDING,
    "base64 in lines": "UklGRiQAAABXQVZF" * 5 + "\r\n" + RECORDING,
    "all escapes": '"\\\b\f\n\r\t/' * 10_000,
    "with letters that are none of ASCII": "\u00e9\u4eca\U0001f469" * 30_000,
    "a pair of escapes in two pieces": f"{RECORDING}\U0001f469{RECORDING}",
    "short": "UklGR",
}


@pytest.mark.parametrize("string", STRINGS.values(), ids=STRINGS)
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_long_strings_are_what_json_reads(string: str, ensure_ascii: bool) -> None:
    value = {"a": 1, "audio": string, string: [string, {"b": string}], "c": "", "more": [[], string[:-1], None]}
    text = json.dumps(value, ensure_ascii=ensure_ascii)
    assert read_json(text.encode()) == value
    slashes = text.replace("/", "\\/")  # as PHP writes them
    assert read_json(b"\xef\xbb\xbf" + slashes.encode()) == value


@given(JSON)
def test_strings_that_are_read_in_pieces_are_what_json_reads(value: object) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bounded_json, "LONG_STRING", 1)
        assert read_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("string", ["A" * 2_000_000, "\n" * 1_000_000, "A" * 70 + "/" * 1_000_000])
def test_a_long_string_holds_the_lock_for_no_longer_than_a_short_one(
    string: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    loads = json.loads

    def noted(text: str | bytes, **more: object) -> object:
        lengths.append(len(text))
        return loads(text, **more)  # type: ignore[arg-type]

    body = json.dumps({"input": "Hello", "ref_audio": string}).replace("/", "\\/").encode()
    monkeypatch.setattr(json, "loads", noted)
    assert read_json(body)["ref_audio"] == string
    assert max(lengths) < 100_000


@pytest.mark.parametrize("end", ['"b": 1}', ', "b": }', ', "b": 1', "", ', "b": [1 2]}', '\n, "b": }'])
@pytest.mark.parametrize("begin", ['{"\u00e9": 1, "a": ', '{\n"a": '])
def test_it_is_told_where_json_is_wrong(begin: str, end: str) -> None:
    text = f'{begin}"{RECORDING}"{end}'
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as raised:
        read_json(text.encode())
    assert (raised.value.msg, raised.value.lineno, raised.value.colno) == (
        expected.value.msg,
        expected.value.lineno,
        expected.value.colno,
    )


@pytest.mark.parametrize(
    "field",
    ['"%s"' % ("\u00e9" * 60_000), '"%s"' % ("\\ud800" * 20_000), "1" * 110_000, " " * 110_000 + "1"],
    ids=["letters", "escapes", "digits", "blanks"],
)
def test_only_a_recording_may_be_very_long(field: str) -> None:
    most = 100_000
    assert parse(f'{{"input": "Hello", "ref_audio": "{RECORDING}"}}'.encode(), most=most).ref_audio == RECORDING
    with pytest.raises(InvalidRequestError, match=f"the body is refused: it has more than {most} bytes beside"):
        parse(f'{{"input": "Hello", "more": {field}, "ref_audio": "{RECORDING}"}}'.encode(), most=most)
