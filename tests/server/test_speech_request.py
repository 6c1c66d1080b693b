"""The request body: types, ranges, and messages that say what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.errors import InvalidRequestError
from server.speech_request import SpeechRequest, parse

GOOD = {"model": "tts-1", "input": "Hello", "voice": "alloy"}


def parse_with(**fields: Any) -> SpeechRequest:
    return parse(json.dumps({**GOOD, **fields}).encode())


def refuse(body: bytes) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse(body)
    return caught.value


def test_the_least_request() -> None:
    request = parse_with()
    assert (request.response_format, request.stream_format, request.language) == ("mp3", None, "auto")
    assert (request.seed, request.temperature, request.exact_frames) == (None, None, None)


def test_null_means_absent_and_strange_fields_are_ignored() -> None:
    optional = {name: None for name in SpeechRequest.model_fields if name not in GOOD}
    assert parse_with(**optional, user="me", anything={"a": [1]}) == parse_with()


def test_a_voice_may_be_an_object() -> None:
    assert parse_with(voice={"id": "ryan", "more": 1}).voice_name == "ryan"


def test_the_edges_of_the_ranges() -> None:
    parse_with(temperature=0, top_p=1, top_k=0, repetition_penalty=1, seed=0, exact_frames=1, speed=1.0)
    parse_with(temperature=2, top_p=1e-9, repetition_penalty=2, seed=2**63 - 1)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("model", 5, "must be a string"),
        ("input", "", "is empty"),
        ("input", " \n\t", "is empty"),
        ("input", ["a"], "must be a string"),
        ("voice", 7, "must be a string or"),
        ("voice", {}, "must be a string or"),
        ("voice", {"id": 3}, "must be a string or"),
        ("voice", "v" * 257, "at most 256 characters"),
        ("voice", {"id": "v" * 257}, "at most 256 characters"),
        ("model", "m" * 257, "at most 256 characters"),
        ("language", "l" * 257, "at most 256 characters"),
        ("response_format", "ogg", "one of mp3, opus, aac, flac, wav, pcm"),
        ("response_format", "MP3", "one of mp3, opus, aac, flac, wav, pcm"),
        ("speed", 5.5, "must be at most 5"),
        ("speed", 0.2, "must be at least 0.25"),
        ("speed", "1", "must be a number"),
        ("stream_format", "events", "must be 'audio' or 'sse'"),
        ("stream_format", True, "must be 'audio'"),
        ("instructions", 1, "must be a string"),
        ("language", 1, "must be a string"),
        ("seed", "5", "must be an integer"),
        ("seed", True, "must be an integer"),
        ("seed", 1.0, "must be an integer"),
        ("seed", -1, "at least 0"),
        ("seed", 2**63, "less than 9223372036854775808"),
        ("temperature", "0.5", "must be a number"),
        ("temperature", True, "must be a number"),
        ("temperature", -0.1, "at least 0"),
        ("temperature", 2.1, "at most 2"),
        ("top_k", -1, "at least 0"),
        ("top_k", 1.5, "must be an integer"),
        ("top_p", 0, "more than 0"),
        ("top_p", 1.01, "at most 1"),
        ("repetition_penalty", 0.9, "at least 1"),
        ("repetition_penalty", 2.5, "at most 2"),
        ("exact_frames", 0, "at least 1"),
    ],
)
def test_what_does_not_fit_is_named(field: str, value: Any, says: str) -> None:
    error = refuse(json.dumps({**GOOD, field: value}).encode())
    assert error.param == field
    assert error.message.startswith(field)
    assert says in error.message


@pytest.mark.parametrize("field", GOOD)
def test_what_is_missing_is_named(field: str) -> None:
    for body in ({**GOOD, field: None}, {key: value for key, value in GOOD.items() if key != field}):
        error = refuse(json.dumps(body).encode())
        assert (error.param, error.message) == (field, f"{field} is required")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(value: str) -> None:
    body = json.dumps(GOOD)[:-1] + f', "temperature": {value}}}'
    assert refuse(body.encode()).param in ("temperature", None)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"hello", b'{"input": "a",}', b'{"input": "\xff"}', b'{"input": "\\ud800"}', b"[" * 10_000]
)
def test_malformed_json(body: bytes) -> None:
    error = refuse(body)
    assert error.param is None
    assert error.message.startswith("the body is not valid JSON: ")


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"5"])
def test_json_that_is_no_object(body: bytes) -> None:
    assert refuse(body).message == "the body must be a JSON object"


def test_a_message_never_repeats_the_text() -> None:
    body = json.dumps({**GOOD, "input": "the secret text", "seed": "the secret seed"}).encode()
    assert "secret" not in refuse(body).message
