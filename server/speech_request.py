"""The body of POST `/audio/speech`: its fields, their types and ranges, and what to say when they do not fit.

Ranges that depend on the model are the service's to check.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from server.audio.encoders import FORMATS, AudioFormat
from server.audio.stretch import MAX_SPEED, MIN_SPEED
from server.errors import InvalidRequestError

MAX_NAME_CHARS = 256
"""Of a model, a voice or a language; a formula of eight voices is about as long."""


class VoiceReference(BaseModel):
    """The other way OpenAI's API names a voice."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    id: str


class SpeechRequest(BaseModel):
    """What to say and how; null means absent, and fields we do not know are ignored, as OpenAI clients send some."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    model: str
    input: str
    voice: str | VoiceReference
    response_format: AudioFormat = "mp3"
    speed: float = Field(1.0, ge=MIN_SPEED, le=MAX_SPEED)
    instructions: str | None = None
    stream_format: Literal["audio", "sse"] | None = None
    language: str = "auto"
    seed: int | None = Field(None, ge=0, lt=2**63)
    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, ge=1, le=2)
    max_new_tokens: int | None = Field(None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data

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
        """The voice's name, however it was given."""
        return self.voice if isinstance(self.voice, str) else self.voice.id


_TYPE_NAMES = {
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "missing": "is required",
}


def _explain(error: ErrorDetails) -> tuple[str, str | None]:
    """The message for one pydantic error, and the field to blame."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "json_invalid":
        return f"the body is not valid JSON: {context['error']}", None
    if not error["loc"]:
        return "the body must be a JSON object", None
    field = str(error["loc"][0])
    if field == "voice" and kind not in ("missing", "value_error"):
        return 'voice must be a string or {"id": string}', field
    if field == "response_format":
        return f"response_format must be one of {', '.join(FORMATS)}", field
    if field == "stream_format":
        return "stream_format must be 'audio' or 'sse', or absent for the whole file at once", field
    bounds = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}
    bounds |= {"greater_than": ("more than", "gt"), "less_than": ("less than", "lt")}
    if kind in bounds:
        words, key = bounds[kind]
        limit = context[key]
        return f"{field} must be {words} {int(limit) if limit == int(limit) else limit}", field
    return f"{field} {_TYPE_NAMES.get(kind) or error['msg'].removeprefix('Value error, ')}", field


def parse(body: bytes) -> SpeechRequest:
    """Read a request's body.

    Raises:
        InvalidRequestError: it is not a JSON object, or a field is missing, of the wrong type or out of range.
    """
    try:
        return SpeechRequest.model_validate_json(body)
    except ValidationError as error:
        message, field = _explain(error.errors(include_input=False, include_url=False)[0])
        raise InvalidRequestError(message, param=field) from None


def build(**fields: object) -> SpeechRequest:
    """Make a request from values, as the command line has them.

    Raises:
        InvalidRequestError: as for `parse`.
    """
    try:
        return SpeechRequest.model_validate(fields)
    except ValidationError as error:
        message, field = _explain(error.errors(include_input=False, include_url=False)[0])
        raise InvalidRequestError(message, param=field) from None
