"""Bearer keys."""

from __future__ import annotations

import pytest

from server.errors import UnauthorizedError
from server.http.access import KeyRing, key_of_subprotocols

KEYS = KeyRing(["first", "zweiter schlüssel"])


@pytest.mark.parametrize(
    ("header", "label"),
    [
        ("Bearer first", "key1"),
        ("bearer first", "key1"),
        ("Bearer  first ", "key1"),
        ("Bearer zweiter schlüssel", "key2"),
        ("Api-Key first", "key1"),
        ("api-key zweiter schlüssel", "key2"),
    ],
)
def test_a_known_key_is_accepted_under_its_label(header: str, label: str) -> None:
    assert KEYS.check(header) == label


@pytest.mark.parametrize(
    ("authorization", "api_key", "label"),
    [
        (None, "first", "key1"),
        ("Bearer", " zweiter schlüssel ", "key2"),
        ("Bearer zweiter schlüssel", "first", "key2"),
    ],
)
def test_azures_header_counts_where_the_other_has_no_key(authorization: str | None, api_key: str, label: str) -> None:
    assert KEYS.check(authorization, api_key) == label


@pytest.mark.parametrize(
    ("authorization", "api_key"), [(None, ""), (None, " "), (None, "other"), ("Bearer other", "first")]
)
def test_azures_header_is_checked_like_the_other(authorization: str | None, api_key: str) -> None:
    with pytest.raises(UnauthorizedError):
        KEYS.check(authorization, api_key)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "first", "Basic first", "Bearer firs", "Bearer first,second", "Bearer \udcff"],
)
def test_any_other_authorization_is_refused(header: str | None) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        KEYS.check(header)
    assert caught.value.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        (["speech-stream, openai-insecure-api-key.sk-a_B.9"], "sk-a_B.9"),
        (["openai-insecure-api-key.first,speech-stream"], "first"),
        (["speech-stream", "openai-insecure-api-key.first"], "first"),
        (["openai-insecure-api-key.zweiter%20schl%C3%BCssel%2F%3D"], "zweiter schlüssel/="),
        (["openai-insecure-api-key.%FF"], "\N{REPLACEMENT CHARACTER}"),
        (["openai-insecure-api-key."], ""),
        (["speech-stream, insecure.first"], None),
        ([""], None),
        ([], None),
    ],
)
def test_a_page_offers_its_key_as_a_subprotocol(headers: list[str], key: str | None) -> None:
    assert key_of_subprotocols(headers) == key
