"""GET `/audio/voices`, as Open WebUI reads it, or the names alone."""

from __future__ import annotations

from collections.abc import Mapping

from sanic import Blueprint, Request
from sanic.response import HTTPResponse, json

from server.errors import InvalidRequestError
from server.http.routes.methods import get_and_head
from server.http.schemas import VoiceList, VoiceNames
from server.models.catalogue import Bundles
from server.voices.catalogue import voices_of
from server.voices.profiles import Profile

FORMATS = ("objects", "names")


def voice_routes(bundles: Bundles, profiles: Mapping[str, Profile]) -> Blueprint:
    """The route over `bundles`: the default model's voices, or with `?model=ID` that model's.

    Most clients read one shape and say nothing of it: what they are answered is Open WebUI's. `?format=names` is the
    other one.
    """
    blueprint = Blueprint("voices")

    @get_and_head(blueprint, "/audio/voices", ctx_public=True)
    async def list_voices(request: Request) -> HTTPResponse:
        name, shape = request.args.get("model"), request.args.get("format", FORMATS[0])
        if shape not in FORMATS:
            raise InvalidRequestError(f"format must be one of {', '.join(FORMATS)}", param="format")
        none = name is None and not bundles.all()
        bundle = None if none else bundles.default() if name is None else bundles.resolve(name)
        voices = voices_of(bundle.manifest, profiles) if bundle else []
        names = [voice.id for voice in voices]
        return json((VoiceNames(voices=names) if shape == "names" else VoiceList(voices=voices)).model_dump())

    return blueprint
