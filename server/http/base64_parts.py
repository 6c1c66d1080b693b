"""Encodes files in base64, part by part: a whole file would hold up the event loop, also if a thread encoded it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

ENCODED_AT_A_TIME = 3 << 14
"""Bytes, three of which are four characters of base64; a slow client is noticed as often."""


def base64_parts(body: bytes | bytearray) -> Iterator[bytes]:
    """The base64 of a file, in parts."""
    view = memoryview(body)
    return (b64encode(view[start : start + ENCODED_AT_A_TIME]) for start in range(0, len(view), ENCODED_AT_A_TIME))


def base64_length(body: bytes | bytearray) -> int:
    """How many characters the base64 of a file has."""
    return 4 * -(-len(body) // 3)
