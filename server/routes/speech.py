"""POST `/audio/speech`."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from sanic import Blueprint, Request
from sanic.response import HTTPResponse, raw

from server import log
from server.errors import SpeechFailedError
from server.service import Speech, SpeechService
from server.speech_request import SpeechRequest, parse

STALL_SECONDS = 60
"""A stream whose client takes nothing for so long is broken off: its row is somebody else's by then."""


def speech_routes(service: SpeechService) -> Blueprint:
    """The route, speaking through `service`."""
    blueprint = Blueprint("speech")

    @blueprint.post("/audio/speech")
    async def create_speech(request: Request) -> HTTPResponse | None:
        order = parse(request.body)
        speech = await service.start(order)
        try:
            # An HTTP/1.0 client cannot read a body of unknown length, so it waits for the whole.
            if order.stream_format is None or request.version == "1.0":
                return raw(await speech.whole(), content_type=speech.content_type, headers=_headers(speech))
            await _stream(request, speech)
            return None
        finally:
            speech.stop()
            _log(request, order, speech)

    return blueprint


def _headers(speech: Speech) -> dict[str, str]:
    return {"x-seed": str(speech.seed)}


async def _stream(request: Request, speech: Speech) -> None:
    """Send parts as they become ready; an error before the first is still an error answer."""
    parts = speech.parts()
    first = await anext(parts)
    # x-accel-buffering: nginx would otherwise hold the stream back until its buffer is full.
    headers = {**_headers(speech), "x-accel-buffering": "no"}
    response = await request.respond(content_type=speech.content_type, headers=headers)
    try:
        await _send(response, first)
        async for part in parts:
            await _send(response, part)
    except (SpeechFailedError, TimeoutError) as error:
        await _break_off(request, error)
    await response.eof()


async def _send(response: HTTPResponse, part: bytes) -> None:
    async with asyncio.timeout(STALL_SECONDS):
        await response.send(part)


async def _break_off(request: Request, error: Exception) -> None:
    """Drop the connection without the end-of-body mark, so that no client takes what it has for the whole."""
    log.event("stream_broken", level=logging.WARNING, id=request.id, reason=type(error).__name__)
    cast(asyncio.Transport, request.transport).abort()
    # Sanic cancels the task of a lost connection, which is this one.
    await asyncio.Event().wait()


def _log(request: Request, order: SpeechRequest, speech: Speech) -> None:
    audio, wall = speech.audio_seconds, speech.wall_seconds
    log.event(
        "speech",
        id=request.id,
        model=speech.model,
        voice=order.voice_name,
        format=order.response_format,
        stream=order.stream_format,
        chars=len(order.input),
        seed=speech.seed,
        outcome=speech.outcome,
        error=speech.error,
        audio_seconds=audio,
        wall_seconds=wall,
        rtf=wall / audio if audio else None,
    )
