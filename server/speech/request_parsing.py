"""Reads a speech request out of a body, an object or options, and says what is wrong with it where it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from server.audio.formats import FORMATS
from server.errors import InvalidRequestError
from server.speech.fields import MAX_EMBEDDING, MAX_LEXICON_ENTRIES
from server.speech.foreign_fields import ALIASES, understand
from server.speech.request import SpeechRequest
from server.speech.request_body import json_object
from server.text.lexicon import MAX_SAY_CHARS, MAX_WORD_CHARS

_TYPE_NAMES = {
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "missing": "is required",
}
_CHOICES = {
    "response_format": f"must be one of {', '.join(FORMATS)}",
    "stream_format": "must be 'audio' or 'sse', or absent",
    "timestamps": "must be 'sentence' or 'chunk', or absent; times of words are not known",
    "layout": "must be 'whole' or 'streaming'",
    "text_format": "must be one of auto, plain, markdown, html",
    "task_type": "must be CustomVoice, VoiceDesign or Base, or absent",
    "speaker_embedding": f"must be an array of 1 to {MAX_EMBEDDING} finite numbers",
    "lexicon": (
        f"must be an object of at most {MAX_LEXICON_ENTRIES} entries: a word of 1 to {MAX_WORD_CHARS} characters, and "
        f'what to say instead, of at most {MAX_SAY_CHARS}, or {{"say": string, "any_case": true or false}}'
    ),
}


def explain(error: ErrorDetails) -> tuple[str, str | None]:
    """Make the message of a pydantic error, without the field's name, and name the field to blame."""
    kind, context = error["type"], error.get("ctx", {})
    if not error["loc"]:
        return "the body must be a JSON object", None
    field = str(error["loc"][0])
    if field == "voice" and kind != "value_error":
        return 'must be a string or {"id": string}', field
    if field in _CHOICES:
        return _CHOICES[field], field
    bounds = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}
    bounds |= {"greater_than": ("more than", "gt"), "less_than": ("less than", "lt")}
    if kind in bounds:
        words, key = bounds[kind]
        limit = context[key]
        return f"must be {words} {int(limit) if limit == int(limit) else limit}", field
    if kind in ("string_too_long", "too_long"):
        return f"must have at most {context['max_length']} characters", field
    return _TYPE_NAMES.get(kind) or error["msg"].removeprefix("Value error, "), field


def _validated(fields: object, sent_as: Mapping[str, str]) -> SpeechRequest:
    try:
        request = SpeechRequest.model_validate(fields)
    except ValidationError as error:
        message, field = explain(error.errors(include_input=False, include_url=False)[0])
        name = sent_as.get(field, field) if field else None
        raise InvalidRequestError(f"{name} {message}" if name else message, param=name) from None
    if request.stream is False and request.stream_format == "sse":
        raise InvalidRequestError(
            "stream: false asks for a whole file and stream_format: sse for events; leave one of them out",
            param="stream",
        )
    if request.timestamps == "sentence" and request.exact_frames is not None:
        raise InvalidRequestError(
            "exact_frames speaks a text in one piece, so that no sentence has a time; ask for timestamps chunk",
            param="timestamps",
        )
    cap, exact = request.max_new_tokens, request.exact_frames
    if cap is not None and exact is not None and cap < exact:
        raise InvalidRequestError("exact_frames must be at most max_new_tokens", param="exact_frames")
    return request


def parse(body: bytes, *, content_type: str = "", content_encoding: str = "", most: int | None = None) -> SpeechRequest:
    """Read a request's body.

    Args:
        body: the bytes as they were received.
        content_type: the header of this name; it only chooses the words of an error.
        content_encoding: the header of this name, likewise.
        most: bytes that it may have beside recordings in base64; None is no limit.

    Raises:
        InvalidRequestError: the body is not a JSON object, or a field is missing, has the wrong type, is out of range,
            or asks for a cloned voice in a way that is not followed.
    """
    return of_object(json_object(body, content_type=content_type, content_encoding=content_encoding, most=most))


def of_object(sent: Mapping[str, Any]) -> SpeechRequest:
    """Read a request's fields, as its client named them.

    Raises:
        InvalidRequestError: as for `parse`.
    """
    understood = understand(sent, SpeechRequest.model_fields)
    request = _validated(understood.fields, understood.sent_as)
    for name, value in understood.superseded.items():
        ours = ALIASES[name]
        _validated({**understood.fields, ours: value}, {**understood.sent_as, ours: name})
    return request.ignoring(understood.ignored)


def build(**fields: object) -> SpeechRequest:
    """Make a request from the options of the command line.

    Raises:
        InvalidRequestError: as for `parse`.
    """
    return _validated(fields, {})
