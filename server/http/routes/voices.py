"""GET `/audio/voices`, as Open WebUI reads it."""

from __future__ import annotations

from collections.abc import Mapping

from sanic import Blueprint, Request
from sanic.response import HTTPResponse, json

from server.http.routes.methods import get_and_head
from server.http.schemas import VoiceList
from server.models.catalogue import Bundles
from server.voices.catalogue import voices_of
from server.voices.profiles import Profile


def voice_routes(bundles: Bundles, profiles: Mapping[str, Profile]) -> Blueprint:
    """Make the route, which lists the voices of the default model, or of the model in `?model=ID`."""
    blueprint = Blueprint("voices")

    @get_and_head(blueprint, "/audio/voices", ctx_public=True)
    async def list_voices(request: Request) -> HTTPResponse:
        name = request.args.get("model")
        if name is None and not bundles.all():
            return json(VoiceList(voices=[]).model_dump())
        bundle = bundles.default() if name is None else bundles.resolve(name)
        return json(VoiceList(voices=voices_of(bundle.manifest, profiles)).model_dump())

    return blueprint
