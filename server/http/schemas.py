"""What the API answers with beside audio and errors, as its OpenAPI document describes it."""

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
    """What a request's `model` names it."""
    object: Literal["model"] = "model"
    created: int
    """Unix seconds at which its bundle was made."""
    owned_by: str = "qwen3-tts-edge"
    description: str
    languages: list[str]
    """What a request's `language` may be."""
    instructions: bool
    """Whether it follows a request's `instructions`."""
    cloning: bool
    """Whether it clones voices from recordings."""
    precision: Precision
    """How its weights are stored."""
    parity: dict[str, Any]
    """How near it is to the original model, as measured when it was converted."""
    provider: str | None
    """What computes it; null while it is not loaded."""
    loaded: bool
    """Whether it is in memory; it is loaded when a request asks for it."""
    problem: str | None
    """Why it cannot be served; null where nothing is known to be wrong."""


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


class VoiceList(_Answer):
    """Every voice of a model: its own first, those that only stand in for another at last."""

    voices: list[Voice]


class VoiceNames(_Answer):
    """Every voice of a model, as vLLM-Omni and older Kokoro-FastAPI list them."""

    voices: list[str]
    """What a request's `voice` may be."""
    uploaded_voices: list[str] = []
    """None: voices are not cloned here."""


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


class Alive(_Answer):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(_Answer):
    """The default model can speak."""

    status: Literal["ready"] = "ready"
    version: str = __version__
    """Of the server."""
    model: str
    """Id of the default model."""
    problems: list[str]
    """What is known to be wrong with other models."""
