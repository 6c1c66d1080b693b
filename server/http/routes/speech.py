"""POST `/audio/speech`."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

from sanic import Blueprint, Request

from server.errors import ApiError, KeyLimitError, SpeechFailedError
from server.http.access import KeyLimit
from server.http.close_delimited import send_until_closed
from server.http.sending import Sender, break_off
from server.metrics import UNKNOWN, Metrics
from server.speech import telling
from server.speech.progress import made
from server.speech.rendering import Speech, WholeFiles
from server.speech.request import SpeechRequest
from server.speech.request_parsing import parse
from server.speech.service import SpeechService
from server.speech.telling import CAPPED

EVENT_STREAM = "text/event-stream"
MAX_NOTES_CHARS = 1000
"""The longest header that says what was dropped from the text; proxies refuse large headers."""


def speech_routes(
    service: SpeechService, metrics: Metrics, limit: KeyLimit, timeout: float, files: WholeFiles, *, streams: bool
) -> Blueprint:
    """Make the route.

    Args:
        service: starts the speech.
        metrics: counts every request.
        limit: limits the requests that one key has under way.
        timeout: seconds without progress of the engine or of the client after which a request is ended; 0 is no limit.
        files: bounds the files that are sent whole.
        streams: whether audio is sent while it is made if a request does not say.
    """
    blueprint = Blueprint("speech")

    async def start(request: Request) -> tuple[SpeechRequest, Speech]:
        model = audio_format = UNKNOWN
        try:
            headers = request.headers
            speech_request = await asyncio.to_thread(
                parse,
                request.body,
                content_type=headers.getone("content-type", ""),
                content_encoding=headers.getone("content-encoding", ""),
            )
            speech_request = speech_request.asked_by(request.ctx.caller)
            await request.app.ctx.turns.take()  # many that are parsed together would share a round of the loop
            audio_format = speech_request.response_format
            model = service.pool.bundles.resolve(speech_request.model).id
            return speech_request, await service.start(speech_request)
        except ApiError as error:
            metrics.request(model, audio_format, telling.refusal(error), request.ctx.key)
            raise
        except asyncio.CancelledError:  # the client left while the model was being loaded
            metrics.request(model, audio_format, "stopped", request.ctx.key)
            raise

    @blueprint.post("/audio/speech", ctx_takes_recordings=True)
    async def create_speech(request: Request) -> None:
        try:
            with limit.one_more(request.ctx.key):
                await answer(request)
        except KeyLimitError:
            metrics.request(UNKNOWN, UNKNOWN, "key_limit", request.ctx.key)
            raise

    async def answer(request: Request) -> None:
        speech_request, speech = await start(request)
        way = speech_request.way(streams=streams)
        try:
            headers = _headers(speech_request, speech)
            if way == "whole":
                with files.one() as grow:
                    await _send_whole(request, speech, headers, timeout, grow)
            elif way == "sse":
                await _stream(request, speech, _events(speech), EVENT_STREAM, headers, timeout)
            else:
                await _stream(request, speech, speech.parts(), speech.content_type, headers, timeout)
        finally:
            speech.stop()
            telling.ended(metrics, speech_request, speech, request_id=str(request.id), key=request.ctx.key, way=way)

    return blueprint


def _headers(speech_request: SpeechRequest, speech: Speech) -> dict[str, str]:
    """Make the headers of an answer, from what is known before its first byte."""
    headers = {"x-seed": str(speech.seed)}
    if speech.instruction_dropped:
        headers["x-instructions"] = "ignored"
    if speech.stand_in and speech.speaker:
        headers["x-stand-in"] = quote(speech.speaker)
    if speech_request.ignored:
        headers["x-ignored"] = ",".join(speech_request.ignored)
    if speech.text_notes:
        headers["x-text-notes"] = "; ".join(speech.text_notes)[:MAX_NOTES_CHARS]
    if speech.reference_notes:
        headers["x-reference-notes"] = "; ".join(speech.reference_notes)[:MAX_NOTES_CHARS]
    return headers


async def _events(speech: Speech) -> AsyncIterator[bytes]:
    """Yield the file as OpenAI's server-sent events: parts in base64, then the end with the usage."""
    async for part in speech.parts():
        yield _event({"type": "speech.audio.delta", "audio": b64encode(part).decode()})
    tokens, frames = speech.usage
    usage = {"input_tokens": tokens, "output_tokens": frames, "total_tokens": tokens + frames}
    ended = {"finish_reason": CAPPED} if speech.capped else {}
    yield _event({"type": "speech.audio.done", "usage": usage, **ended})


def _event(data: dict[str, object]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


async def _send_whole(
    request: Request, speech: Speech, headers: dict[str, str], timeout: float, grow: Callable[[int], None]
) -> None:
    body = await made(speech.whole(grow), speech, timeout)
    speech.stop()
    headers = {**headers, "content-length": str(len(body))}
    if speech.capped:
        headers["x-finish-reason"] = CAPPED
    response = await request.respond(content_type=speech.content_type, headers=headers)
    sender = Sender(response, speech, timeout)
    try:
        await sender.send(body)
        await sender.end()
    except TimeoutError as error:
        await break_off(request, error)


async def _stream(
    request: Request,
    speech: Speech,
    parts: AsyncIterator[bytes],
    content_type: str,
    headers: dict[str, str],
    timeout: float,
) -> None:
    """Send parts as they become ready; an error before the first part is still answered as an error."""
    part: bytes | None = await made(anext(parts), speech, timeout)
    # x-accel-buffering: nginx would otherwise hold the stream back until its buffer is full.
    headers = {**headers, "x-accel-buffering": "no"}
    response = await request.respond(content_type=content_type, headers=headers)
    if request.version == "1.0":
        send_until_closed(request, response)
    sender = Sender(response, speech, timeout)
    try:
        while part is not None:
            await sender.send(part)
            part = await made(anext(parts, None), speech, timeout)
        await sender.end()
    except (SpeechFailedError, TimeoutError) as error:
        await break_off(request, error)
