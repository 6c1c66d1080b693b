"""The OpenAPI 3.1 document, generated from the models that requests are read with and answers are made of.

Fields describe themselves, errors give their own examples; only routes, statuses and example requests are said here.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from server import __version__
from server.audio.encoders import CONTENT_TYPES
from server.audio.formats import FORMATS
from server.errors import ApiError, InvalidRequestError, SpeechFailedError
from server.http.error_answers import SANIC_CODES, TOO_LARGE, body_of, body_of_error
from server.http.openapi_schemas import Json, ref_to, schemas_of
from server.http.schemas import (
    HEADERS,
    SPEECH_HEADERS,
    Alive,
    AudioModelList,
    BatchAnswer,
    CaptionedAnswer,
    ErrorAnswer,
    ModelDetails,
    ModelList,
    Ready,
    VoiceCard,
    VoiceDeleted,
    VoiceList,
    VoiceMade,
    VoiceNames,
)
from server.speech.batch import MAX_ITEMS
from server.speech.keeping import FILE_FIELD, VoiceOrder
from server.speech.request import SpeechRequest

ABOUT = """Text to speech by Qwen3-TTS, as OpenAI's SDKs, Kokoro Web's clients, Open WebUI and SillyTavern ask for it.

The same routes lie under `/v1` and `/api/v1`, but for those that name the server's root. `OPTIONS` is answered on every
route, without a key.

Requests are read more leniently than this document says: numbers may be strings, words such as `mp3` may have any case
and blanks around them, and an empty string counts as absent. Fields that ask for a cloned voice in another way than
the one described here are refused. All other fields that are not described are ignored, and the header `x-ignored`
names them.

Text that arrives while it is spoken has a WebSocket, `/audio/speech/stream`, in vLLM-Omni's protocol. OpenAPI cannot
describe it; `docs/live.md` does."""

BATCH: Json = {
    "type": "object",
    "required": ["items"],
    "properties": {
        "items": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_ITEMS,
            "items": {"type": "object"},
            "description": "Requests of `POST /audio/speech`; a field that an item lacks is taken from the batch.",
        }
    },
    "example": {"voice": "serena", "items": [{"input": "One."}, {"input": "Two.", "voice": "ryan"}]},
}

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

_TOO_LARGE = 413


def document(*, max_input_chars: int, needs_key: bool) -> Json:
    """The document, as JSON would have it.

    Args:
        max_input_chars: longest text and longest instructions.
        needs_key: whether routes that are not public ask for a key.
    """
    key = {
        "type": "http",
        "scheme": "bearer",
        "description": "A key of `KW_SECRET_API_KEY` or of the file `KW_API_KEYS_FILE`; as Azure's clients send it, in "
        "the header `api-key`, it counts too.",
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "qwen3-tts-edge",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/v1", "description": "OpenAI's habit"}, {"url": "/api/v1", "description": "Kokoro Web's"}],
        "security": [{"key": []}] if needs_key else [],
        "tags": [
            {"name": "speech", "description": "Text in, audio out."},
            {"name": "batch", "description": "Several texts in, their files out."},
            {"name": "files", "description": "Samples in, a file out."},
            {"name": "catalogue", "description": "Models and voices."},
            {"name": "voices", "description": "Cloned voices that are kept."},
            {"name": "health", "description": "For whoever watches the server."},
        ],
        "paths": _paths(),
        "components": {
            "schemas": schemas_of(max_input_chars),
            "headers": HEADERS,
            "securitySchemes": {"key": key},
        },
    }


def _paths() -> Json:
    wanted_model = {
        "name": "model",
        "in": "query",
        "description": "The model whose voices are listed; the default one if absent.",
        "schema": {"type": "string"},
        "example": "tts-1",
    }
    model_id = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "example": "tts-1"}
    root = [{"url": "/", "description": "The server's root"}]
    speech = _operation("createSpeech", "speech", "Speak a text", _audio(), 400, 401, 403, 404, 413, 429, 500, 503, 504)
    speech["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": ref_to(SpeechRequest), "examples": REQUESTS}},
    }
    captioned = _operation(
        "createCaptionedSpeech",
        "speech",
        "Speak a text, and tell when each sentence is heard",
        {**_json(CaptionedAnswer), "application/x-ndjson": {"schema": {"type": "string"}}},
        *(400, 401, 403, 404, 413, 429, 500, 503, 504),
    )
    wanted = {"type": "boolean", "default": True, "description": "`false` leaves out the times."}
    order = {"allOf": [ref_to(SpeechRequest), {"type": "object", "properties": {"return_timestamps": wanted}}]}
    captioned["requestBody"] = {"required": True, "content": {"application/json": {"schema": order}}}
    statuses = 400, 401, 403, 413, 429, 503
    batch = _operation("createSpeechBatch", "batch", "Speak several texts", _json(BatchAnswer), *statuses)
    batch["responses"]["200"]["headers"] |= _headers("x-ignored")
    batch["requestBody"] = {"required": True, "content": {"application/json": {"schema": BATCH}}}
    encoded = _operation("encodeAudio", "files", "Encode samples", _files(), 400, 401, 403, 429, 503)
    wanted_format = {
        "name": "response_format",
        "in": "query",
        "description": "The kind of file.",
        "schema": {"enum": list(FORMATS), "default": "mp3"},
    }
    samples = {"type": "string", "format": "binary", "description": "Samples: 16 bit, little-endian, mono, 24 kHz."}
    encoded["requestBody"] = {"required": True, "content": {"audio/pcm": {"schema": samples}}}
    models = _operation("listModels", "catalogue", "List the models", _json(ModelList), 401)
    model = _operation("retrieveModel", "catalogue", "Describe a model", _json(ModelDetails), 404, 503)
    shape = {
        "name": "format",
        "in": "query",
        "description": "`names` lists ids alone, as vLLM-Omni does.",
        "schema": {"enum": ["objects", "names", ""], "default": "objects"},
    }
    listed = {"application/json": {"schema": {"anyOf": [ref_to(VoiceList), ref_to(VoiceNames)]}}}
    voices = _operation("listVoices", "catalogue", "List a model's voices", listed, 400, 404, 503)
    made = _operation(
        "createVoice",
        "voices",
        "Keep a cloned voice",
        _json(VoiceMade),
        *(400, 401, 403, 404, 409, 413, 429, 500, 503, 504),
    )
    file = {"type": "string", "format": "binary", "description": "The recording: WAV, FLAC, Ogg, MP3, M4A or WebM."}
    form = {"allOf": [ref_to(VoiceOrder), {"type": "object", "properties": {FILE_FIELD: file}}]}
    made["requestBody"] = {
        "required": True,
        "content": {"multipart/form-data": {"schema": form}, "application/json": {"schema": ref_to(VoiceOrder)}},
    }
    voice_id = {**model_id, "example": "anna"}
    kept = _operation("retrieveVoice", "voices", "Describe an uploaded voice", _json(VoiceCard), 401, 404)
    deleted = _operation("deleteVoice", "voices", "Delete an uploaded voice", _json(VoiceDeleted), 401, 403, 404)
    audio_models = _operation("listAudioModels", "catalogue", "List the models' names", _json(AudioModelList))
    this = _operation("describeApi", "catalogue", "This document", {"application/json": {"schema": {"type": "object"}}})
    alive = _operation("live", "health", "Whether the process answers", _json(Alive))
    ready = _operation("ready", "health", "Whether the default model can speak", _json(Ready), 503)
    text = {"text/plain": {"schema": {"type": "string"}}}
    health = _operation("health", "health", "As `/readyz`, whose 200 is `OK` here", text, 503)
    metrics = _operation("metrics", "health", "Metrics, as Prometheus reads them", text, 401)
    return {
        "/audio/speech": {"post": speech},
        "/audio/speech/batch": {"post": batch},
        "/audio/encode": {"post": {**encoded, "parameters": [wanted_format]}},
        "/dev/captioned_speech": {"servers": root, "post": captioned},
        "/models": {"get": models},
        "/models/{id}": {"get": {**model, "parameters": [model_id]}},
        "/audio/voices": {"get": {**voices, "parameters": [wanted_model, shape]}, "post": made},
        "/audio/voices/{id}": {
            "get": {**kept, "parameters": [voice_id]},
            "delete": {**deleted, "parameters": [voice_id]},
        },
        "/audio/models": {"get": audio_models},
        "/openapi.json": {"get": this},
        "/livez": {"servers": root, "get": alive},
        "/readyz": {"servers": root, "get": ready},
        "/health": {"servers": root, "get": health},
        "/metrics": {"servers": root, "get": metrics},
    }


def _operation(name: str, tag: str, summary: str, content: Json, *statuses: int) -> Json:
    """One operation; it is public if it cannot answer 401."""
    found: Json = {"description": "Success.", "headers": _headers("x-request-id"), "content": content}
    if tag == "speech":
        found["headers"] |= _headers("x-seed", *SPEECH_HEADERS)
    responses = {"200": found, **{str(status): _error(status) for status in statuses}}
    responses["default"] = {
        "description": "Any other error: an unknown path or method, malformed HTTP, a mistake of the server.",
        "headers": _headers("x-request-id"),
        "content": _json(ErrorAnswer),
    }
    operation: Json = {"operationId": name, "tags": [tag], "summary": summary, "responses": responses}
    return operation if 401 in statuses else {**operation, "security": []}


def _error(status: int) -> Json:
    """A status, with an example of each error that has it: what it means, and what to do."""
    examples, words, headers = {}, [], {"x-request-id"}
    if status >= SpeechFailedError.status:
        headers.add("x-should-retry")
    for error in _kinds(ApiError):
        if error.status == status and error.code is not None:
            message, param = error.example
            meaning = (error.__doc__ or "").partition("\n")[0]
            body = body_of_error(error(message, param=param))
            examples[error.code] = {"summary": meaning, "description": error.remedy, "value": body}
            words.append(f"`{error.code}`: {meaning}")
            headers |= set(error.headers)
    if status == _TOO_LARGE:
        code = SANIC_CODES[status]
        body = body_of(TOO_LARGE.format(2_000_000), kind=InvalidRequestError.kind, code=code)
        meaning = "The body is too long."
        examples[code] = {"summary": meaning, "description": "Send a shorter text or recording.", "value": body}
        words = [f"`{code}`: {meaning}"]
    content = {"application/json": {"schema": ref_to(ErrorAnswer), "examples": examples}}
    return {"description": "\n\n".join(words), "headers": _headers(*sorted(headers)), "content": content}


def _kinds(error: type[ApiError]) -> Iterator[type[ApiError]]:
    """Yield a class of errors and all its subclasses."""
    yield error
    for kind in error.__subclasses__():
        yield from _kinds(kind)


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _json(model: type[BaseModel]) -> Json:
    return {"application/json": {"schema": ref_to(model)}}


def _audio() -> Json:
    """The media types of speech: files, and events."""
    event = {
        "type": "object",
        "properties": {"data": {"type": "string", "contentMediaType": "application/json"}},
        "required": ["data"],
        "description": "Events `speech.audio.delta` with `audio`, a part of the file in base64, "
        "then one `speech.audio.done` with `usage`, and with `finish_reason` `length` where `max_new_tokens` "
        "ended the speech. With `timestamps`, an event `speech.timestamp` before the audio of each sentence, chunk or "
        "pause, and one behind it: `text`, its place in `input` (`start_char` and `end_char`, in code points), "
        "`start_time` and `end_time` (in seconds; the latter null in the first event), and `pause` where nothing is "
        "said.",
    }
    return _files() | {"text/event-stream": {"schema": event}}


def _files() -> Json:
    file = {"schema": {"type": "string", "format": "binary"}}
    return dict.fromkeys(sorted(set(CONTENT_TYPES.values())), file)
