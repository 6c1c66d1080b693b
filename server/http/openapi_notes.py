"""What the OpenAPI document says that no model says of itself: words, examples, headers."""

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

Json = dict[str, Any]

ABOUT = """Text to speech by Qwen3-TTS, as OpenAI's SDKs, Kokoro Web's clients, Open WebUI and SillyTavern ask for it.

The same routes lie under `/v1` and `/api/v1`; `OPTIONS` is answered on each of them, without a key.

Requests are read with mercy beyond what this document says: numbers may be strings, words such as `mp3` may have any
case and blanks around them, and an empty string is as good as none. `instruct` is `instructions`, `lang_code` and
`language_id` are `language`, `format` is `response_format`, `text` is `input`. Fields that ask for a cloned voice are
refused; all others that are not described here are ignored, and the answer's `x-ignored` names them."""

NOT_BLANK = r"[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
r"""Something that `str.strip` leaves; what `\s` means differs between Python and JSON Schema's ECMA-262."""

FIELDS: dict[str, Json] = {
    "model": {
        "description": "An id of `GET /models`, or the Hub id of its checkpoint; case and the signs between words do "
        "not matter. `default`, OpenAI's names (`tts-1`, …), `kokoro` and Kokoro Web's names mean the default model.",
        "examples": ["tts-1"],
    },
    "input": {
        "description": "The text to speak, with some letter or digit in a script of the model's languages. `[0.5s]`, "
        '`[pause 500ms]` and `<break time="500ms"/>` are silence; `[voice:ID]` changes the voice from there on.',
        "examples": ["Hello from my own machine."],
        "pattern": NOT_BLANK,
    },
    "voice": {
        "description": "An id of `GET /audio/voices`: profiles, speakers, OpenAI's names, Kokoro's ids. Where none is "
        "written like this, case does not matter, nor blank or underscore. Of a formula the heaviest is taken. "
        "`default` and `none` mean what `alloy` means.",
        "examples": ["alloy", {"id": "serena"}, "serena_meditation", "af_heart*0.7+af_bella*0.3", "af_sky(2)+af_bella"],
    },
    "response_format": {
        "description": "The kind of file; `pcm` is signed 16 bit, little-endian, 24 kHz, mono. `ogg`, `oga` and "
        "`ogg_opus` are read as `opus`, `pcm16` as `pcm`.",
    },
    "speed": {"description": "How fast to speak, at the same pitch; 2 takes half the time."},
    "instructions": {
        "description": "How to speak; for a VoiceDesign model, which voice. Models that do not follow it drop it.",
        "examples": ["Calm and slow, as if reading a bedtime story."],
    },
    "stream_format": {
        "description": "`audio`, also where it is absent, sends the file while it is made; `sse` so too, as events.",
    },
    "stream": {
        "description": "`false` sends the file whole and with its length, `true` while it is made; absent, what the "
        "server's `KW_STREAM` says. `false` and `sse` exclude each other.",
    },
    "language": {
        "description": "A language's name, an ISO 639 code, or `auto`; any case.",
        "examples": ["English", "en", "auto"],
    },
    "seed": {
        "description": "The same seed gives the same audio; `x-seed` tells the one that was used. -1 is none.",
    },
    "temperature": {"description": "0 always takes the likeliest code; absent, the model's own."},
    "top_k": {"description": "Draw from so many likeliest codes, 0 or -1 from all; absent, the model's own."},
    "top_p": {
        "description": "Draw from the likeliest codes of so much probability, 0 is the likeliest; absent, the model's.",
    },
    "repetition_penalty": {
        "description": "How much codes that were there before are held back, 1 or 0 not at all; absent, the model's.",
    },
    "max_new_tokens": {
        "description": "Codec frames of 80 ms that the speech may have at most, without pauses; `finish_reason` or "
        "`x-finish-reason` is `length` where they end it. -1 is as good as none.",
    },
    "exact_frames": {
        "description": "Codec frames of 80 ms, for measuring: the text is spoken in one piece, which must fit the "
        "model, is not watched for running away, and is cut off there.",
    },
    "text_format": {
        "description": "What the text is written in; `auto` finds out.",
    },
    "lexicon": {
        "description": "Words, and what to say instead of each.",
        "examples": [{"Qwen": "chwen", "SQL": "sequel"}],
    },
}
"""What the request's model does not say of its fields; what it does say goes before."""

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

SPEECH_HEADERS = ("x-instructions", "x-stand-in", "x-ignored", "x-finish-reason")
"""Of speech, each where there is something to say."""
