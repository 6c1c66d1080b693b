"""POST `/audio/speech`."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import quote

from sanic import Blueprint, Request

from server.errors import ApiError, InvalidRequestError, KeyLimitError, SpeechFailedError
from server.http.close_delimited import send_until_closed
from server.http.doors import Doors
from server.http.json_array import short_json_array
from server.http.sending import Sender, break_off
from server.metrics import UNKNOWN
from server.speech import telling
from server.speech.captions import Caption
from server.speech.progress import made
from server.speech.rendering import Speech
from server.speech.request import SpeechRequest, Way
from server.speech.request_parsing import parse
from server.speech.telling import CAPPED

EVENT_STREAM = "text/event-stream"
MAX_TIMES_CHARS = 4096
"""The longest header of times; many proxies take 8 KB for all headers together."""
MAX_NOTES_CHARS = 1000
"""The longest header that says what was dropped from the text; proxies refuse large headers."""


Read = Callable[..., SpeechRequest]
"""Reads a request's body; it is called in a thread, as `server.speech.request_parsing.parse` is."""
Send = Callable[[SpeechRequest, Speech, Way], Awaitable[None]]
"""Sends the speech of a request, in this way."""


def speech_routes(doors: Doors) -> Blueprint:
    """The route over what `doors` has."""
    blueprint = Blueprint("speech")

    def read(body: bytes, **more: Any) -> SpeechRequest:
        speech_request = parse(body, **more)
        if speech_request.timestamps and speech_request.way(streams=doors.streams) == "audio":
            raise InvalidRequestError(
                "a file that is sent while it is made has no place for timestamps; ask for stream_format sse, for "
                "stream false, or POST /dev/captioned_speech",
                param="timestamps",
            )
        return speech_request

    @blueprint.post("/audio/speech", ctx_takes_recordings=True)
    async def create_speech(request: Request) -> None:
        async def send(speech_request: SpeechRequest, speech: Speech, way: Way) -> None:
            timeout, headers = doors.limits.timeout, speech_headers(speech_request, speech)
            if way == "whole":
                await _send_whole(request, speech, headers, doors)
            elif way == "sse":
                await stream(request, speech, _events(speech), EVENT_STREAM, headers, timeout)
            else:
                await stream(request, speech, speech.parts(), speech.content_type, headers, timeout)

        await speak(doors, request, read, send)

    return blueprint


async def speak(doors: Doors, request: Request, read: Read, send: Send) -> None:
    """Answer a request with one speech, which counts as one that its key has under way.

    Args:
        doors: what speaks.
        request: what asks.
        read: reads the request's body.
        send: sends the speech; whatever becomes of that, the speech ends.
    """
    try:
        with doors.keys.one_more(request.ctx.key):
            speech_request, speech = await _start(doors, request, read)
            way = speech_request.way(streams=doors.streams)
            try:
                await send(speech_request, speech, way)
            finally:
                speech.stop()
                telling.ended(
                    doors.metrics, speech_request, speech, request_id=str(request.id), key=request.ctx.key, way=way
                )
    except KeyLimitError:
        doors.metrics.request(UNKNOWN, UNKNOWN, "key_limit", request.ctx.key)
        raise


async def _start(doors: Doors, request: Request, read: Read) -> tuple[SpeechRequest, Speech]:
    model = audio_format = UNKNOWN
    try:
        headers = request.headers
        speech_request = await asyncio.to_thread(
            read,
            request.body,
            content_type=headers.getone("content-type", ""),
            content_encoding=headers.getone("content-encoding", ""),
            most=request.app.config.REQUEST_MAX_SIZE,
        )
        speech_request = speech_request.asked_by(request.ctx.caller)
        await request.app.ctx.turns.take()  # many that are parsed together would share a round of the loop
        audio_format = speech_request.response_format
        model = doors.service.pool.bundles.resolve(speech_request.model).id
        return speech_request, await doors.service.start(speech_request)
    except ApiError as error:
        doors.metrics.request(model, audio_format, telling.refusal(error), request.ctx.key)
        raise
    except asyncio.CancelledError:  # the client left while the model was being loaded
        doors.metrics.request(model, audio_format, "stopped", request.ctx.key)
        raise


def speech_headers(speech_request: SpeechRequest, speech: Speech) -> dict[str, str]:
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
    """Yield the file as OpenAI's server-sent events: parts in base64, then the end with the usage.

    Between them stand the times of what is heard, if they were asked for: of a piece before and behind its own parts.
    """
    async for part in speech.parts():
        for caption in await speech.due_captions():
            yield _time_event(caption)
        yield _event({"type": "speech.audio.delta", "audio": b64encode(part).decode()})
    for caption in await speech.due_captions():
        yield _time_event(caption)
    tokens, frames = speech.usage
    usage = {"input_tokens": tokens, "output_tokens": frames, "total_tokens": tokens + frames}
    ended = {"finish_reason": CAPPED} if speech.capped else {}
    yield _event({"type": "speech.audio.done", "usage": usage, **ended})


def _time_event(caption: Caption) -> bytes:
    return _event({"type": "speech.timestamp", **caption.told()})


def _event(data: dict[str, object]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


async def _send_whole(request: Request, speech: Speech, headers: dict[str, str], doors: Doors) -> None:
    with doors.files.one() as grow:
        body = await made(speech.whole(grow), speech, doors.limits.timeout)
        if speech.times:
            times = short_json_array((caption.told() for caption in await speech.captions()), MAX_TIMES_CHARS)
            if times is not None:
                headers = {**headers, "x-timestamps": times}
        await send_made(request, speech, [body], len(body), speech.content_type, headers, doors.limits.timeout)


async def send_made(
    request: Request,
    speech: Speech,
    parts: Iterable[bytes | bytearray],
    length: int,
    content_type: str,
    headers: dict[str, str],
    timeout: float,
) -> None:
    """Send speech that has been made, in parts of a body of so many bytes."""
    speech.stop()
    headers = {**headers, "content-length": str(length)}
    if speech.capped:
        headers["x-finish-reason"] = CAPPED
    response = await request.respond(content_type=content_type, headers=headers)
    sender = Sender(response, speech, timeout)
    try:
        for part in parts:
            await sender.send(part)
            await asyncio.sleep(0)  # what makes the next part may take as long as sending this one
        await sender.end()
    except TimeoutError as error:
        await break_off(request, error)


async def stream(
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
