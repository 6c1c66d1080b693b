"""GET `/models` and `/models/{id}` in OpenAI's shape, `/audio/models` and `/audio/voices` as Open WebUI reads them."""

from __future__ import annotations

from urllib.parse import unquote

from sanic import Blueprint, Request
from sanic.response import HTTPResponse, json

from server.errors import InvalidRequestError
from server.http.listing import Listing
from server.http.routes.methods import get_and_head
from server.http.routes.voices import card_of
from server.http.schemas import (
    AudioModel,
    AudioModelList,
    ModelCard,
    ModelDetails,
    ModelList,
    ModelVoice,
    VoiceList,
    VoiceNames,
)
from server.models.catalogue import Bundle
from server.models.pool import EnginePool
from server.voices import languages
from server.voices.catalogue import own_voices_of

FORMATS = ("objects", "names")


def catalogue_routes(pool: EnginePool, listing: Listing) -> Blueprint:
    """Make the routes.

    Args:
        pool: the engines of the models.
        listing: what there is to choose from.
    """
    blueprint = Blueprint("catalogue")

    def describe(bundle: Bundle) -> ModelCard:
        manifest, engine = bundle.manifest, pool.loaded().get(bundle.id)
        return ModelCard(
            id=bundle.id,
            created=bundle.created,
            description=manifest.description,
            languages=[languages.AUTO, *languages.spoken(manifest.languages)],
            instructions=manifest.follows_instructions,
            cloning=manifest.clones,
            precision=manifest.precision,
            parity=manifest.parity,
            provider=engine.provider if engine else None,
            loaded=engine is not None,
            problem=bundle.problem,
        )

    @get_and_head(blueprint, "/models")
    async def list_models(request: Request) -> HTTPResponse:
        return json(ModelList(data=[describe(bundle) for bundle in listing.models()]).model_dump())

    @get_and_head(blueprint, "/models/<name:str>", ctx_public=True)
    async def retrieve_model(request: Request, name: str) -> HTTPResponse:
        """Describe a model, and list the voices that are its own."""
        bundle = listing.bundles.resolve(unquote(name))
        voices = [
            ModelVoice(name=voice.id, language=voice.language, gender=voice.gender)
            for voice in own_voices_of(bundle.manifest, listing.profiles)
        ]
        return json(ModelDetails(**describe(bundle).model_dump(), voices=voices).model_dump())

    @get_and_head(blueprint, "/audio/models", ctx_public=True)
    async def list_audio_models(request: Request) -> HTTPResponse:
        models = [AudioModel(id=bundle.id, name=bundle.id) for bundle in listing.models()]
        return json(AudioModelList(models=models).model_dump())

    @get_and_head(blueprint, "/audio/voices", ctx_public=True, ctx_shows_own=True)
    async def list_voices(request: Request) -> HTTPResponse:
        """List the voices of the default model, or of the model in `?model=ID`; their names alone with `?format=names`.

        Uploaded voices are there if some model speaks with them: the named one, or any where none is named. Most
        clients read one shape and say nothing of it: they are answered with Open WebUI's.
        """
        name, shape = request.args.get("model"), request.args.get("format", FORMATS[0])
        if shape not in FORMATS:
            raise InvalidRequestError(f"format must be one of {', '.join(FORMATS)}", param="format")
        await listing.kept.look()
        voices, saved = listing.voices(request.ctx.caller, name)
        cards = [card_of(voice) for voice in saved]
        names = [voice.id for voice in voices]
        answer: VoiceNames | VoiceList = VoiceList(
            voices=voices, uploaded_voices=cards, keeps_voices=listing.kept.keeps
        )
        if shape == "names":
            answer = VoiceNames(voices=names, uploaded_voices=cards)
        return json(answer.model_dump())

    return blueprint
