"""The body of POST `/audio/speech`: its fields, their types and ranges, and what to say when they do not fit.

Forms, home automations and chat programs fill these fields, so what a value means counts and not how it is written:
numbers may be strings, names have any case, and an empty text is as good as none. Ranges that depend on the model are
the service's to check.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from server.audio.encoders import FORMATS, AudioFormat
from server.audio.stretch import MAX_SPEED, MIN_SPEED
from server.errors import InvalidRequestError
from server.speech.foreign_fields import is_absent, understand
from server.speech.request_body import json_object

MAX_NAME_CHARS = 256
"""Of a model, a voice or a language; a formula of eight voices is about as long."""
DEFAULT = "default"
"""The model or the voice of someone who names none."""
MAX_LEXICON_ENTRIES, MAX_LEXICON_WORD_CHARS, MAX_LEXICON_SAID_CHARS = 1000, 100, 1000

Way = Literal["whole", "audio", "sse"]
"""How an answer is sent: as a file with its length, as a file while it is made, or so too, as events."""

_NONE = -1
"""What many programs have for a number that is not set."""
_OTHER_FORMATS = {"ogg": "opus", "oga": "opus", "ogg_opus": "opus", "pcm16": "pcm", "pcm_s16le": "pcm"}
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,400})(?:\.0*)?\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?\s*", re.ASCII)
"""Bounded, as Python reads 4300 digits at most. No decimal comma: `1,000` is a thousand elsewhere."""


def _whole_characters(value: object) -> object:
    """Half a character, as programs send it that cut a text within an emoji, becomes U+FFFD."""
    return _LONE_SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value


def _number(value: object) -> object:
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _integer(value: object) -> object:
    """JSON has one kind of number, so 5.0 is an integer."""
    if isinstance(value, str) and (found := _INTEGER.fullmatch(value)):
        return int(found[1])
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _choice(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _audio_format(value: object) -> object:
    chosen = _choice(value)
    return _OTHER_FORMATS.get(chosen, chosen) if isinstance(chosen, str) else chosen


def _switch(value: object) -> object:
    return {"true": True, "false": False}.get(chosen, value) if isinstance(chosen := _choice(value), str) else value


def _unset(value: object) -> object:
    integer = _integer(value)
    return None if type(integer) is int and integer == _NONE else integer


def _top_k(value: object) -> object:
    """-1 switches the filter off, as 0 does."""
    integer = _integer(value)
    return 0 if type(integer) is int and integer == _NONE else integer


def _penalty(value: object) -> object:
    """0 is what programs send that have none; as a factor it would have no meaning."""
    number = _number(value)
    return 1.0 if isinstance(number, int | float) and not isinstance(number, bool) and number == 0 else number


Text = Annotated[str, BeforeValidator(_whole_characters)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_integer)]
Cap = Annotated[
    int | None,
    Field(ge=1),
    BeforeValidator(_unset),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": _NONE}, {"type": "null"}]}),
]
Seed = Annotated[
    int | None,
    Field(ge=0, lt=2**63),
    BeforeValidator(_unset),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": _NONE, "exclusiveMaximum": 2**63}, {"type": "null"}]}),
]
TopK = Annotated[
    int | None,
    Field(ge=0),
    BeforeValidator(_top_k),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": _NONE}, {"type": "null"}]}),
]
Penalty = Annotated[
    float | None,
    Field(ge=1, le=2),
    BeforeValidator(_penalty),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1, "maximum": 2}, {"const": 0}, {"type": "null"}]}),
]
Word = Annotated[Text, Field(min_length=1, max_length=MAX_LEXICON_WORD_CHARS)]
Said = Annotated[Text, Field(max_length=MAX_LEXICON_SAID_CHARS)]


class VoiceReference(BaseModel):
    """The other way OpenAI's API names a voice."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    id: Text


class SpeechRequest(BaseModel):
    """What to say and how; what is null or empty means absent, and `ignored` names the fields we do not know."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    input: Text
    model: Text = DEFAULT
    voice: Text | VoiceReference = DEFAULT
    response_format: Annotated[AudioFormat, BeforeValidator(_audio_format)] = "mp3"
    speed: Annotated[float, Field(ge=MIN_SPEED, le=MAX_SPEED), BeforeValidator(_number)] = 1.0
    instructions: Text | None = None
    stream_format: Annotated[Literal["audio", "sse"], BeforeValidator(_choice)] | None = None
    stream: Annotated[bool, BeforeValidator(_switch)] | None = None
    language: Text = "auto"
    seed: Seed = None
    temperature: Annotated[float | None, Field(ge=0, le=2), BeforeValidator(_number)] = None
    top_k: TopK = None
    top_p: Annotated[float | None, Field(ge=0, le=1), BeforeValidator(_number)] = None
    repetition_penalty: Penalty = None
    max_new_tokens: Cap = None
    exact_frames: Count | None = None
    text_format: Annotated[Literal["auto", "plain", "markdown", "html"], BeforeValidator(_choice)] = "auto"
    lexicon: dict[Word, Said] = Field({}, max_length=MAX_LEXICON_ENTRIES)

    _ignored: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="before")
    @classmethod
    def _drop_what_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {
            name: value
            for name, value in data.items()
            if not is_absent(value) or (name == "input" and value is not None)
        }
        voice = data.get("voice")
        if isinstance(voice, dict) and "id" in voice and is_absent(voice["id"]):
            del data["voice"]
        return data

    @field_validator("input")
    @classmethod
    def _something_to_say(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; send the text to speak")
        return value

    @field_validator("model", "voice", "language")
    @classmethod
    def _short(cls, value: str | VoiceReference) -> str | VoiceReference:
        if len(value if isinstance(value, str) else value.id) > MAX_NAME_CHARS:
            raise ValueError(f"must have at most {MAX_NAME_CHARS} characters")
        return value

    @property
    def voice_name(self) -> str:
        """The voice's name, however it was given; `default` where none was."""
        return self.voice if isinstance(self.voice, str) else self.voice.id

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the fields that were sent and mean nothing here, fit for a header."""
        return self._ignored

    def way(self, *, streams: bool) -> Way:
        """How the answer is to be sent, where `streams` is what the server does if nobody says."""
        if self.stream_format == "sse":
            return "sse"
        wanted = self.stream
        if wanted is None:
            wanted = streams or self.stream_format is not None
        return "audio" if wanted else "whole"


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
    "text_format": "must be one of auto, plain, markdown, html",
    "lexicon": (
        f"must be an object of at most {MAX_LEXICON_ENTRIES} entries: a word of 1 to {MAX_LEXICON_WORD_CHARS} "
        f"characters and what to say instead, a string of at most {MAX_LEXICON_SAID_CHARS}"
    ),
}


def _explain(error: ErrorDetails) -> tuple[str, str | None]:
    """The message for one pydantic error, less the field, and the field to blame."""
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
    return _TYPE_NAMES.get(kind) or error["msg"].removeprefix("Value error, "), field


def _validated(fields: object, sent_as: Mapping[str, str]) -> SpeechRequest:
    try:
        request = SpeechRequest.model_validate(fields)
    except ValidationError as error:
        message, field = _explain(error.errors(include_input=False, include_url=False)[0])
        name = sent_as.get(field, field) if field else None
        raise InvalidRequestError(f"{name} {message}" if name else message, param=name) from None
    if request.stream is False and request.stream_format == "sse":
        raise InvalidRequestError(
            "stream: false asks for a whole file and stream_format: sse for events; leave one of them out",
            param="stream",
        )
    cap, exact = request.max_new_tokens, request.exact_frames
    if cap is not None and exact is not None and cap < exact:
        raise InvalidRequestError("exact_frames must be at most max_new_tokens", param="exact_frames")
    return request


def parse(body: bytes, *, content_type: str = "", content_encoding: str = "") -> SpeechRequest:
    """Read a request's body.

    Args:
        body: as it was received.
        content_type: header of this name, for the words of an error.
        content_encoding: header of this name, likewise.

    Raises:
        InvalidRequestError: it is not a JSON object, or a field is missing, of the wrong type or out of range, or asks
            for a cloned voice.
    """
    sent = json_object(body, content_type=content_type, content_encoding=content_encoding)
    understood = understand(sent, SpeechRequest.model_fields)
    request = _validated(understood.fields, understood.sent_as)
    request._ignored = understood.ignored
    return request


def build(**fields: object) -> SpeechRequest:
    """Make a request from values, as the command line has them.

    Raises:
        InvalidRequestError: as for `parse`.
    """
    return _validated(fields, {})
