"""POST `/audio/voices`, GET and DELETE `/audio/voices/{id}`: cloned voices that are kept.

Names and answers are those of OpenAI and of vLLM-Omni, whose keys do not contradict each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote

from sanic import Blueprint, Request
from sanic.request.form import File, parse_multipart_form
from sanic.response import HTTPResponse, json

from server import log
from server.errors import InvalidRequestError, UnknownVoiceError
from server.http.access import KeyLimit
from server.http.routes.methods import get_and_head
from server.http.schemas import VoiceCard, VoiceDeleted, VoiceMade
from server.speech.keeping import FILE_FIELD, Keeper, read_order
from server.speech.request_body import json_object
from server.voices.folder import VoiceFolder
from server.voices.saved import SavedVoice

MOST_PARTS = 64
"""Of a form."""
MOST_HEAD_BYTES = 4096
"""Of a part's headers."""
_parse = cast(Callable[[bytes, bytes], tuple[dict[str, list[str]], dict[str, list[File]]]], parse_multipart_form)
_WANTED = "multipart/form-data with its boundary, or a JSON object"
_FILE_FIELDS = (FILE_FIELD, "audio", "file", "voice_file")


def voice_routes(keeper: Keeper, voices: VoiceFolder, limit: KeyLimit) -> Blueprint:
    """Make the routes.

    Args:
        keeper: makes voices.
        voices: those that are kept.
        limit: limits the requests that one key has under way, of which an upload is one.
    """
    blueprint = Blueprint("voices")

    @blueprint.post("/audio/voices", ctx_takes_recordings=True)
    async def create_voice(request: Request) -> HTTPResponse:
        with limit.one_more(request.ctx.key):
            sent, upload = await asyncio.to_thread(_read, request)
            voice = await keeper.keep(read_order(sent), upload, request.ctx.caller)
        facts = voice.facts
        log.event(
            "voice_kept",
            id=request.id,
            key=request.ctx.key,
            voice=voice.name,
            model=facts.model,
            seconds=facts.seconds,
            designed=facts.designed or None,
            shared=facts.shared or None,
        )
        card = card_of(voice)
        return json(VoiceMade(**card.model_dump(), voice=card).model_dump())

    @get_and_head(blueprint, "/audio/voices/<name:str>", "DELETE")
    async def one_voice(request: Request, name: str) -> HTTPResponse:
        name = unquote(name)
        if request.method != "DELETE":
            await voices.look()
            voice = voices.find(name, request.ctx.caller)
            if voice is None:
                raise UnknownVoiceError("there is no voice of this name that was uploaded", param="voice")
            return json(card_of(voice).model_dump())
        await asyncio.to_thread(voices.remove, name, request.ctx.caller)
        log.event("voice_deleted", id=request.id, key=request.ctx.key, voice=name)
        return json(VoiceDeleted(id=name, message=f"the voice {name} has been deleted").model_dump())

    return blueprint


def card_of(voice: SavedVoice) -> VoiceCard:
    """What the API says of a voice that is kept."""
    facts = voice.facts
    return VoiceCard(
        id=facts.name,
        name=facts.name,
        created_at=facts.created,
        description=facts.description,
        consent=facts.consent,
        shared=facts.shared or facts.owner is None,
        model=facts.model,
        in_context=facts.text is not None,
        designed=facts.designed,
        seconds=facts.seconds,
        notes=list(facts.notes),
    )


def _read(request: Request) -> tuple[dict[str, Any], bytes | None]:
    """The fields of a form or of a JSON object, and the file of a form."""
    content_type = request.headers.getone("content-type", "")
    kind, _, options = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        most = request.app.config.REQUEST_MAX_SIZE
        return json_object(request.body, content_type=content_type, most=most, wanted=_WANTED), None
    boundary = next(
        (
            value.strip().strip('"')
            for name, _, value in (part.partition("=") for part in options.split(";"))
            if name.strip().lower() == "boundary"
        ),
        "",
    )
    try:
        _check_parts(request.body, boundary.encode("latin-1"))
        fields, files = _parse(request.body, boundary.encode("latin-1"))
    except InvalidRequestError:
        raise
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidRequestError(
            f"the form cannot be read ({type(error).__name__}); send multipart/form-data"
        ) from None
    if not (fields or files):
        raise InvalidRequestError("the form has no fields; send multipart/form-data with its boundary")
    found = {name: values[0] for name, values in fields.items()}
    uploads = [files[name][0] for name in _FILE_FIELDS if name in files]
    return found, uploads[0].body if uploads else None


def _check_parts(body: bytes, boundary: bytes) -> None:
    """See that a form has few parts with short heads: Sanic reads as many as there are.

    Raises:
        InvalidRequestError: it has not.
    """
    if not boundary or body.count(boundary) > MOST_PARTS:
        raise InvalidRequestError(f"the form has no boundary, or more than {MOST_PARTS} parts")
    for part in body.split(boundary)[1:-1]:
        if part.find(b"\r\n\r\n", 0, MOST_HEAD_BYTES) < 0:
            raise InvalidRequestError("a part of the form has no end of its headers; send multipart/form-data")
