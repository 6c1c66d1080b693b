"""What the OpenAPI document says that no model says of itself: requests, errors, headers."""

from __future__ import annotations

from typing import Any

from server.errors import (
    ApiError,
    BusyError,
    ForbiddenError,
    InvalidRequestError,
    KeyLimitError,
    ModelLoadingError,
    ModelRestartingError,
    ModelUnavailableError,
    NoProgressError,
    SpeechFailedError,
    StoppingError,
    TooManyConnectionsError,
    UnauthorizedError,
    UnknownModelError,
)
from server.speech.batch import MAX_ITEMS

Json = dict[str, Any]

ABOUT = """Text to speech by Qwen3-TTS, as OpenAI's SDKs, Kokoro Web's clients, Open WebUI and SillyTavern ask for it.

The same routes lie under `/v1` and `/api/v1`; `OPTIONS` is answered on each of them, without a key.

Requests are read with mercy beyond what this document says: numbers may be strings, words such as `mp3` may have any
case and blanks around them, and an empty string is as good as none. `instruct` is `instructions`, `lang_code` and
`language_id` are `language`, `format` is `response_format`, `text` is `input`. Fields that ask for a cloned voice are
refused; all others that are not described here are ignored, and the answer's `x-ignored` names them.

Text that arrives while it is spoken has a WebSocket, `/audio/speech/stream`, in vLLM-Omni's protocol. OpenAPI has no
words for it, the README has."""

REQUESTS: dict[str, Json] = {
    "whole": {
        "summary": "A whole MP3 file",
        "value": {"model": "tts-1", "input": "Hello from my own machine.", "voice": "alloy", "stream": False},
    },
    "streamed": {
        "summary": "Raw samples, sent while they are made",
        "value": {
            "model": "tts-1",
            "input": "Hello from my own machine.",
            "voice": "serena",
            "language": "English",
            "response_format": "pcm",
            "stream": True,
        },
    },
    "reproducible": {
        "summary": "The same audio each time",
        "value": {"model": "tts-1", "input": "Once more.", "voice": "ryan", "response_format": "wav", "seed": 7},
    },
}

BATCH: Json = {
    "type": "object",
    "required": ["items"],
    "properties": {
        "items": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_ITEMS,
            "items": {"type": "object"},
            "description": "Requests of `POST /audio/speech`; a field that one lacks is that of the batch.",
        }
    },
    "example": {"voice": "serena", "items": [{"input": "One."}, {"input": "Two.", "voice": "ryan"}]},
}

ERRORS: tuple[tuple[type[ApiError], str, str | None], ...] = (
    (InvalidRequestError, "seed must be at least 0", "seed"),
    (UnauthorizedError, "this API key is not known here", None),
    (ForbiddenError, "pages of https://other.example may not ask this server", None),
    (UnknownModelError, "there is no such model; there are qwen3_tts_0_6b_customvoice, tts-1", "model"),
    (BusyError, "too many requests are waiting already; try again soon", None),
    (KeyLimitError, "this API key has 2 requests under way, its limit; try again soon", None),
    (SpeechFailedError, "the speech could not be made to its end; the server's log says why", None),
    (ModelLoadingError, "the model qwen3_tts_0_6b_customvoice is being loaded; try again soon", "model"),
    (ModelRestartingError, "the engine of this model has stopped; another one is being started", "model"),
    (ModelUnavailableError, "this model cannot be served: talker.onnx is damaged", "model"),
    (StoppingError, "the server is stopping; try again soon", None),
    (TooManyConnectionsError, "there are too many connections; try again soon", None),
    (NoProgressError, "the engine has made nothing for 120 seconds; try again", None),
)
"""Each with a message such as it has, and the field that is to blame."""

HEADERS: dict[str, Json] = {
    "x-request-id": {
        "description": "The request's id in the server's log: its own `x-request-id` where it sent one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    },
    "x-seed": {
        "description": "The seed that reproduces this audio.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "x-instructions": {
        "description": "`ignored` where the model does not follow the instructions that the request or its voice has.",
        "schema": {"type": "string", "enum": ["ignored"]},
    },
    "x-stand-in": {
        "description": "The speaker that is heard, percent-encoded, where the model lacks the one that is meant.",
        "schema": {"type": "string"},
    },
    "x-ignored": {
        "description": "Names of the request's fields that mean nothing here, percent-encoded, with commas.",
        "schema": {"type": "string"},
    },
    "x-finish-reason": {
        "description": "`length` where `max_new_tokens` ended the speech; of a whole file only.",
        "schema": {"type": "string", "enum": ["length"]},
    },
    "x-text-notes": {
        "description": "What was dropped from the text because the model cannot say it.",
        "schema": {"type": "string"},
    },
    "retry-after": {
        "description": "Seconds after which it may work.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "x-should-retry": {
        "description": "`false` where the same request would fail again; OpenAI's SDKs heed it.",
        "schema": {"type": "string", "enum": ["false"]},
    },
    "www-authenticate": {
        "description": "How to authenticate.",
        "required": True,
        "schema": {"type": "string", "enum": ["Bearer"]},
    },
}

SPEECH_HEADERS = ("x-instructions", "x-stand-in", "x-ignored", "x-text-notes", "x-finish-reason")
"""Of speech, each where there is something to say."""
