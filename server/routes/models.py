"""GET `/models`, `/models/{id}` in OpenAI's shape, and `/audio/models` as Open WebUI reads it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from sanic import Blueprint, Request
from sanic.response import HTTPResponse, json

from server import languages
from server.bundles import Bundle
from server.pool import EnginePool
from server.speech_engine import SpeechEngine


def model_routes(pool: EnginePool) -> Blueprint:
    """The routes over `pool`. A bundle whose manifest cannot be read is not listed; asking for it says why."""
    blueprint = Blueprint("models")
    bundles = pool.bundles

    def describe(bundle: Bundle) -> dict[str, Any]:
        return _describe(bundle, pool.loaded().get(bundle.id))

    @blueprint.get("/models")
    async def list_models(request: Request) -> HTTPResponse:
        return json({"object": "list", "data": [describe(bundle) for bundle in bundles.all() if bundle.readable]})

    @blueprint.get("/models/<name:str>")
    async def retrieve_model(request: Request, name: str) -> HTTPResponse:
        return json(describe(bundles.resolve(unquote(name))))

    @blueprint.get("/audio/models", ctx_public=True)
    async def list_audio_models(request: Request) -> HTTPResponse:
        listed = [bundle for bundle in bundles.all() if bundle.readable]
        return json({"models": [{"id": bundle.id, "name": bundle.id} for bundle in listed]})

    return blueprint


def _describe(bundle: Bundle, engine: SpeechEngine | None) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "id": bundle.id,
        "object": "model",
        "created": bundle.created,
        "owned_by": "qwen3-tts-edge",
        "description": manifest.description,
        "languages": [languages.AUTO, *languages.spoken(manifest.languages)],
        "instructions": manifest.follows_instructions,
        "cloning": False,
        "precision": manifest.precision,
        "parity": manifest.parity,
        "provider": engine.provider if engine else None,
        "loaded": engine is not None,
        "problem": bundle.problem,
    }
