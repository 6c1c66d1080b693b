"""GET `/models`, `/models/{id}` in OpenAI's shape, and `/audio/models` as Open WebUI reads it."""

from __future__ import annotations

from urllib.parse import unquote

from sanic import Blueprint, Request
from sanic.response import HTTPResponse, json

from server.http.routes.methods import get_and_head
from server.http.schemas import AudioModel, AudioModelList, ModelCard, ModelList
from server.models.catalogue import Bundle
from server.models.pool import EnginePool
from server.models.pool_entry import SpeechEngine
from server.voices import languages


def model_routes(pool: EnginePool) -> Blueprint:
    """Make the routes. A bundle whose manifest cannot be read is not listed; a request for it is told why."""
    blueprint = Blueprint("models")
    bundles = pool.bundles

    def describe(bundle: Bundle) -> ModelCard:
        return _describe(bundle, pool.loaded().get(bundle.id))

    @get_and_head(blueprint, "/models")
    async def list_models(request: Request) -> HTTPResponse:
        listed = [describe(bundle) for bundle in bundles.all() if bundle.manifest_or_none]
        return json(ModelList(data=listed).model_dump())

    @get_and_head(blueprint, "/models/<name:str>")
    async def retrieve_model(request: Request, name: str) -> HTTPResponse:
        return json(describe(bundles.resolve(unquote(name))).model_dump())

    @get_and_head(blueprint, "/audio/models", ctx_public=True)
    async def list_audio_models(request: Request) -> HTTPResponse:
        listed = [AudioModel(id=bundle.id, name=bundle.id) for bundle in bundles.all() if bundle.manifest_or_none]
        return json(AudioModelList(models=listed).model_dump())

    return blueprint


def _describe(bundle: Bundle, engine: SpeechEngine | None) -> ModelCard:
    manifest = bundle.manifest
    return ModelCard(
        id=bundle.id,
        created=bundle.created,
        description=manifest.description,
        languages=[languages.AUTO, *languages.spoken(manifest.languages)],
        instructions=manifest.follows_instructions,
        cloning=False,
        precision=manifest.precision,
        parity=manifest.parity,
        provider=engine.provider if engine else None,
        loaded=engine is not None,
        problem=bundle.problem,
    )
