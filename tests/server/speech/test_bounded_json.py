"""JSON of strangers: it is read as `json` reads it, up to a number of values."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidRequestError
from server.speech.bounded_json import MOST_VALUES, NoNumberError, TooManyValuesError, read_json
from server.speech.request_parsing import parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a"\\,:[{\n\u00e9', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\,:[{', max_size=4), inner, max_size=4),
)
MANY = MOST_VALUES + 1
TOO_MANY = {
    "numbers": f"[{'0,' * MANY}0]",
    "arrays": f"[{'[],' * MANY}0]",
    "objects": f"[{'{},' * MANY}0]",
    "nested arrays": f"{'[[],' * MANY}",
    "strings": '["",' + '"",' * MANY + "0]",
    "strings without commas": '""' * MANY,
    "keys": json.dumps({str(number): 0 for number in range(MANY // 2 + 1)}),
    "keys without commas": "{" + '"a":' * MANY,
    "behind strings with quotes": json.dumps(['"', '\\"', "\\", *[[]] * MANY]),
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
    assert read_json(json.dumps(value)) == value
    assert read_json(json.dumps(value, ensure_ascii=False, indent=1)) == value


@given(st.text('"\\,:[]{}01a \n', max_size=20))
def test_it_refuses_what_json_refuses(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError as error:
        with pytest.raises(type(error)):
            read_json(text)
    else:
        assert read_json(text) == expected


def test_json_has_no_nan() -> None:
    with pytest.raises(NoNumberError, match=r"^NaN$"):
        read_json('{"a": [NaN]}')


@pytest.mark.parametrize("text", TOO_MANY.values(), ids=TOO_MANY)
def test_a_text_of_very_many_values_is_refused_before_any_is_made(text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TooManyValuesError):
            read_json(text)
        assert tracemalloc.get_traced_memory()[1] < 1 << 19
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", FEW.values(), ids=FEW)
def test_what_requests_have_is_read(text: str) -> None:
    assert read_json(text) == json.loads(text)


@pytest.mark.parametrize("kind", ["arrays", "objects", "numbers"])
def test_a_request_of_very_many_values_is_refused(kind: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"the body is refused: it has more than {MOST_VALUES} values"):
        parse(f'{{"input": "Hello", "more": {TOO_MANY[kind]}}}'.encode())
