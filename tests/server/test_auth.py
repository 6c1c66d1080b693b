"""Bearer keys."""

from __future__ import annotations

import pytest

from server.auth import KeyRing
from server.errors import UnauthorizedError

KEYS = KeyRing(["first", "zweiter schlüssel"])


@pytest.mark.parametrize(
    ("header", "label"),
    [
        ("Bearer first", "key1"),
        ("bearer first", "key1"),
        ("Bearer  first ", "key1"),
        ("Bearer zweiter schlüssel", "key2"),
    ],
)
def test_a_known_key_opens(header: str, label: str) -> None:
    assert KEYS.check(header) == label


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "first", "Basic first", "Bearer firs", "Bearer first,second", "Bearer \udcff"],
)
def test_anything_else_does_not(header: str | None) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        KEYS.check(header)
    assert caught.value.headers["www-authenticate"] == "Bearer"
