"""What a session of WS `/audio/speech/stream` is configured with: a speech request's fields, and options of its own.

Each unit of a text is a request with these fields, as in vLLM-Omni: so `max_new_tokens` bounds a unit, and not all of
an utterance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from server.errors import InvalidRequestError
from server.speech.fields import Switch
from server.speech.foreign_fields import is_absent
from server.speech.request import SpeechRequest
from server.speech.request_parsing import of_object
from server.text.live import GRANULARITIES, Granularity

DEFAULT_FORMAT = "wav"
ANY_TEXT = "a"
"""Stands for the text of a configuration, which has none."""


class StreamOptions(BaseModel):
    """What a session's configuration has beside the fields of a speech request."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    stream_audio: Switch = False
    """Whether the audio of a unit is sent while it is made, in parts, or as one file."""
    split_granularity: Granularity = "none"
    """What is spoken at once: all of an utterance, its sentences, its clauses, or whatever has come of it."""
    word_timestamps: Switch = False


class Config(NamedTuple):
    """A session's configuration, until another one is sent."""

    request: SpeechRequest
    options: StreamOptions
    language: str | None
    """ISO 639-1 code; None goes by the text's script."""


def request_of(sent: Mapping[str, Any]) -> SpeechRequest:
    """Read the fields of a `session.config` that are those of a speech request.

    Raises:
        InvalidRequestError: one of them is wrong.
    """
    own = {"type", "stream", "stream_format", *StreamOptions.model_fields}
    said = {name: value for name, value in sent.items() if name not in own and value is not None}
    if not is_absent(said.get("timestamps")):
        raise InvalidRequestError("timestamps are not available here; leave it out", param="timestamps")
    return of_object({"response_format": DEFAULT_FORMAT, **said, "input": ANY_TEXT})


def options_of(sent: Mapping[str, Any]) -> StreamOptions:
    """Read the other ones; the error is the same."""
    given = {name: sent[name] for name in StreamOptions.model_fields if sent.get(name) is not None}
    try:
        options = StreamOptions.model_validate(given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        wanted = f"one of {', '.join(GRANULARITIES)}" if name == "split_granularity" else "true or false"
        raise InvalidRequestError(f"{name} must be {wanted}", param=name) from None
    if options.word_timestamps:
        raise InvalidRequestError("word_timestamps is not available here; leave it out", param="word_timestamps")
    return options
