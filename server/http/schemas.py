"""What the API answers with beside audio: JSON bodies and headers, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from server import __version__
from server.manifest import Precision
from server.voices.catalogue import Voice


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class ModelCard(_Answer):
    """A model in OpenAI's shape, and what it can do."""

    id: str
    """The name by which a request's `model` asks for it."""
    object: Literal["model"] = "model"
    created: int
    """Unix seconds at which its bundle was made."""
    owned_by: str = "qwen3-tts-edge"
    description: str
    languages: list[str]
    """The languages that a request's `language` may name."""
    instructions: bool
    """Whether it follows a request's `instructions`."""
    cloning: bool
    """Whether it clones voices from recordings."""
    precision: Precision
    """How its weights are stored."""
    parity: dict[str, Any]
    """How closely it agrees with the original model, as measured when it was converted."""
    provider: str | None
    """What computes it; null while it is not loaded."""
    loaded: bool
    """Whether it is in memory; a request for it loads it."""
    problem: str | None
    """Why it cannot be served; null if nothing is known to be wrong."""


class ModelVoice(_Answer):
    """A voice as Speaches lists it."""

    name: str
    """What a request's `voice` may be."""
    language: str | None
    """The speaker's own; null where there is none."""
    gender: str | None
    """`female` or `male` where it is known."""


class ModelDetails(ModelCard):
    """A model, and the voices that are its own."""

    voices: list[ModelVoice]
    """Speakers and profiles; `GET /audio/voices` has all other names too."""


class ModelList(_Answer):
    """Every model, the default one first."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class AudioModel(_Answer):
    """A model as Open WebUI lists it."""

    id: str
    name: str


class AudioModelList(_Answer):
    """Every model, the default one first."""

    models: list[AudioModel]


class VoiceCard(_Answer):
    """An uploaded voice; the keys are OpenAI's and vLLM-Omni's, and some more."""

    object: Literal["audio.voice"] = "audio.voice"
    id: str
    """What a request's `voice` may be: its name."""
    name: str
    created_at: int
    """Unix seconds."""
    description: str
    consent: str
    """What the upload said of the speaker's agreement."""
    shared: bool
    """Whether others may speak with it."""
    model: str
    """The model that encoded it; models of the same sizes may speak with it."""
    in_context: bool
    """Whether it has its recording's codes and text, and not the speaker embedding alone."""
    designed: bool
    """Whether a VoiceDesign model made it up."""
    seconds: float
    """Of its recording."""
    notes: list[str]
    """What is wrong with the recording or its text."""


class VoiceMade(VoiceCard):
    """A voice that has been uploaded, at the top level as OpenAI has it and in `voice` as vLLM-Omni has it."""

    success: Literal[True] = True
    voice: VoiceCard


class VoiceDeleted(_Answer):
    """A voice that has been deleted."""

    object: Literal["audio.voice.deleted"] = "audio.voice.deleted"
    id: str
    deleted: Literal[True] = True
    success: Literal[True] = True
    message: str


class VoiceList(_Answer):
    """Every voice of a model: its own first, and stand-ins for speakers that it lacks last."""

    voices: list[Voice]
    uploaded_voices: list[VoiceCard] = []
    """Those of them that were uploaded, and may be used by who asks."""
    keeps_voices: bool
    """Whether voices can be uploaded."""


class VoiceNames(_Answer):
    """Every voice of a model, as vLLM-Omni and older Kokoro-FastAPI list them."""

    voices: list[str]
    """What a request's `voice` may be."""
    uploaded_voices: list[VoiceCard] = []
    """Those of them that were uploaded, and may be used by who asks."""


class BatchResult(BaseModel):
    """What became of one text of a batch."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    index: int
    """Its place in `items`."""
    status: Literal["success", "error"]
    audio_data: str = ""
    """The whole file in base64; absent where there is an error."""
    media_type: str = ""
    """The file's."""
    seed: int = 0
    """The same seed gives the same audio."""
    usage: dict[str, Any] = {}
    """Tokens of the text, and codec frames made."""
    timestamps: list[dict[str, Any]] = []
    """When each sentence or chunk is heard, as in the events of `stream_format` `sse`; absent unless asked for."""
    error: str = ""
    """What is wrong and what to do; absent where there is none."""
    code: str = ""
    """Which error it is, for programs."""
    param: str = ""
    """The field that is to blame."""


class BatchAnswer(BaseModel):
    """What became of a batch, in the order of its items."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: str
    results: list[BatchResult]
    total: int
    succeeded: int
    failed: int


class CaptionedSentence(_Answer):
    """When a sentence, or a chunk, is heard; the names are those that Kokoro-FastAPI has for a word."""

    word: str
    """What is said, as it was written."""
    start_time: float
    """Seconds from the beginning of the audio."""
    end_time: float


class CaptionedAnswer(_Answer):
    """Speech, and when each sentence is heard; in a stream, a part of it and what has ended since the part before."""

    audio: str
    """The file, or the next part of it, in base64."""
    audio_format: str
    """The file's media type."""
    timestamps: list[CaptionedSentence] | None
    """Null where they were not wanted."""


class Alive(_Answer):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(_Answer):
    """The default model can speak."""

    status: Literal["ready"] = "ready"
    version: str = __version__
    """Version of the server."""
    model: str
    """Id of the default model."""
    problems: list[str]
    """Reasons why other models cannot be served."""


class ErrorDetail(_Answer):
    """What OpenAI's SDKs read of an error."""

    message: str
    """What is wrong and what to do."""
    type: str
    """The kind of error."""
    param: str | None
    """The field of the request that is to blame."""
    code: str | None
    """Which error it is, for programs."""


class ErrorAnswer(_Answer):
    """The body of every error."""

    error: ErrorDetail
    message: str
    """The same message, where Kokoro Web's clients look for it."""


HEADERS: dict[str, dict[str, Any]] = {
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
        "description": "The speaker that is heard, percent-encoded, if the model lacks the one that the voice means.",
        "schema": {"type": "string"},
    },
    "x-ignored": {
        "description": "Names of the request's fields that were ignored, percent-encoded, separated by commas.",
        "schema": {"type": "string"},
    },
    "x-timestamps": {
        "description": "When each sentence or chunk is heard, as JSON with the fields of the events of `stream_format` "
        "`sse`. Only a whole file has it, and only if it has at most 4096 characters.",
        "schema": {"type": "string"},
    },
    "x-finish-reason": {
        "description": "`length` where `max_new_tokens` ended the speech; of a whole file only.",
        "schema": {"type": "string", "enum": ["length"]},
    },
    "x-reference-notes": {
        "description": "What is wrong with the recording of the voice, or with its text.",
        "schema": {"type": "string"},
    },
    "x-text-notes": {
        "description": "What was dropped from the text because the model cannot say it.",
        "schema": {"type": "string"},
    },
    "retry-after": {
        "description": "Seconds after which to try again.",
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

SPEECH_HEADERS = (
    *("x-instructions", "x-stand-in", "x-ignored", "x-text-notes", "x-reference-notes", "x-finish-reason"),
    "x-timestamps",
)
"""Headers of speech that are sent only where they have something to tell."""
