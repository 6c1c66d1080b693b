"""Several texts in one request, in vLLM-Omni's shape: what is said of all, and of each beside that. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from server.errors import InvalidRequestError
from server.speech.foreign_fields import is_asked, told
from server.speech.request import SpeechRequest
from server.speech.request_body import json_object
from server.speech.request_parsing import of_object

MAX_ITEMS = 32
"""Of a batch, as in vLLM-Omni."""
DEFAULT_FORMAT = "wav"
_OF_STREAMS = ("stream", "stream_format")
"""Fields of a request that ask for an answer that is sent while it is made, which those of items never are."""

Item = SpeechRequest | InvalidRequestError
"""What is asked for, or what is wrong with it."""


def parse_batch(
    body: bytes, *, content_type: str = "", content_encoding: str = "", most: int | None = None
) -> list[Item]:
    """Read the body of a batch: an object of `items`, and of fields that hold for each item which lacks them.

    Args:
        body: as it was received.
        content_type: header of this name, for the words of an error.
        content_encoding: header of this name, likewise.
        most: bytes that it may have beside recordings in base64; None is no limit.

    Raises:
        InvalidRequestError: it is no batch. What is wrong with an item is that item's.
    """
    sent = json_object(body, content_type=content_type, content_encoding=content_encoding, most=most)
    items = sent.get("items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidRequestError("items must be an array of objects, each with an input", param="items")
    if not 1 <= len(items) <= MAX_ITEMS:
        raise InvalidRequestError(f"items must have 1 to {MAX_ITEMS} entries, not {len(items)}", param="items")
    shared = {name: value for name, value in _said(sent).items() if name != "items"}
    return [_item({"response_format": DEFAULT_FORMAT, **shared, **_said(item)}) for item in items]


def ignored(items: Sequence[Item]) -> tuple[str, ...]:
    """The names of the fields that were sent and mean nothing here, for a header; those of wrong items are left out."""
    names = dict.fromkeys(name for item in items if isinstance(item, SpeechRequest) for name in item.ignored)
    return told([unquote(name) for name in names])


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _item(fields: Mapping[str, Any]) -> Item:
    try:
        request = of_object({name: value for name, value in fields.items() if name not in _OF_STREAMS})
    except InvalidRequestError as error:
        return error
    unanswered = tuple(name for name in _OF_STREAMS if is_asked(fields.get(name)))
    return request.ignoring((*request.ignored, *unanswered))
