"""Reads the bytes of a request's body as a JSON object, or says what the bytes are instead."""

from __future__ import annotations

import codecs
import json
from typing import Any

from server.errors import InvalidRequestError
from server.speech.bounded_json import NoNumberError, TooMuchError, read_json

_GZIP = b"\x1f\x8b"
_COMPRESSIONS = ("gzip", "x-gzip", "deflate", "br", "zstd", "compress")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LOOKED_AT = 64
"""Bytes at the beginning that are searched for NUL: UTF-16 has one beside each letter of ASCII, and JSON has none."""


def json_object(
    body: bytes,
    *,
    content_type: str = "",
    content_encoding: str = "",
    most: int | None = None,
    wanted: str = "a JSON object",
) -> dict[str, Any]:
    """Read a JSON object in UTF-8, with or without a byte order mark.

    The headers only choose the words of an error, because curl and others send JSON that they call a form.

    Args:
        body: the bytes as they were received.
        content_type: the header of this name.
        content_encoding: the header of this name.
        most: bytes that it may have beside recordings in base64; None is no limit.
        wanted: what an error tells the client to send instead of a form or of nothing.

    Raises:
        InvalidRequestError: the body is not a JSON object, or too much of one.
    """
    try:
        found = read_json(body, most)
    except (ValueError, RecursionError) as error:
        instead = _kind_of(body, content_type.lower(), content_encoding.strip().lower(), wanted)
        raise InvalidRequestError(instead or _reason(error)) from None
    if not isinstance(found, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return found


def _kind_of(body: bytes, content_type: str, content_encoding: str, wanted: str) -> str | None:
    """Say what a body is that is not JSON, and what to do about it; None if that is not plain."""
    if not body.strip():
        return f"the body is not valid JSON: it is empty; send {wanted}"
    if body.startswith(_GZIP) or content_encoding in _COMPRESSIONS:
        return "the body is compressed; send plain JSON in UTF-8, without a Content-Encoding"
    if body.startswith(_UTF16) or b"\0" in body[:_LOOKED_AT]:
        return "the body is not UTF-8 (it looks like UTF-16); send JSON in UTF-8"
    if content_type.startswith("multipart/") or body.startswith(b"--"):
        return f"the body is a multipart form; send {wanted}"
    if content_type.startswith("application/x-www-form-urlencoded") and not body.lstrip().startswith((b"{", b"[")):
        return f"the body is a form; send {wanted}"
    return None


def _reason(error: ValueError | RecursionError) -> str:
    match error:
        case UnicodeDecodeError():
            return "the body is not UTF-8; send JSON in UTF-8"
        case json.JSONDecodeError():
            # Python's own words for a string without an end are "Unterminated string starting at".
            reason = f"{error.msg.removesuffix(' at')} at line {error.lineno} column {error.colno}"
        case TooMuchError():
            return f"the body is refused: {error}"
        case NoNumberError():
            reason = f"{error} is no number"
        case RecursionError():
            reason = "it is nested too deeply"
        case _:
            reason = "a number has too many digits"
    return f"the body is not valid JSON: {reason}"
