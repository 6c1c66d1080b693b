"""POST `/audio/speech`."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar, cast
from urllib.parse import quote

from sanic import Blueprint, Request
from sanic.response import HTTPResponse

from server import log
from server.errors import ApiError, KeyLimitError, NoProgressError, SpeechFailedError
from server.http.access import KeyLimit
from server.http.routes.progress import while_progressing
from server.http.routes.until_closed import reset_at_close, send_until_closed
from server.metrics import UNKNOWN, Metrics, Outcome
from server.speech.rendering import Speech, WholeFiles
from server.speech.request import SpeechRequest, Way, parse
from server.speech.service import SpeechService

T = TypeVar("T")

EVENT_STREAM = "text/event-stream"
CAPPED = "length"
"""OpenAI's word for an answer that a limit of tokens ended."""

SENT_AT_A_TIME = 1 << 16
"""Bytes: what the connection has taken of a part is noticed so often."""
SLOWEST_READER = 4
"""So many seconds a client may let the server wait for each second of audio, on average and beside one pause of the
timeout's length. A player that takes audio as it plays it lets it wait for one."""

MAX_NOTES_CHARS = 1000
"""Of the header that says what was dropped from the text: proxies refuse large ones."""

_REFUSALS: dict[int, Outcome] = {429: "queue_full", 503: "unavailable"}


def speech_routes(
    service: SpeechService, metrics: Metrics, limit: KeyLimit, timeout: float, files: WholeFiles, *, streams: bool
) -> Blueprint:
    """The route, speaking through `service`.

    Args:
        service: what speaks.
        metrics: told of every request.
        limit: of requests under way with one key.
        timeout: seconds without progress, of the engine or of the client, after which a request is ended; 0 is never.
        files: room for those that are sent whole.
        streams: whether audio is sent while it is made where a request does not say.
    """
    blueprint = Blueprint("speech")

    async def start(request: Request) -> tuple[SpeechRequest, Speech]:
        model = audio_format = UNKNOWN
        try:
            headers = request.headers
            order = await asyncio.to_thread(
                parse,
                request.body,
                content_type=headers.getone("content-type", ""),
                content_encoding=headers.getone("content-encoding", ""),
            )
            audio_format = order.response_format
            model = service.pool.bundles.resolve(order.model).id
            return order, await service.start(order)
        except ApiError as error:
            metrics.request(model, audio_format, _REFUSALS.get(error.status, "invalid"), request.ctx.key)
            raise
        except asyncio.CancelledError:  # the client has left while the model was loaded
            metrics.request(model, audio_format, "stopped", request.ctx.key)
            raise

    @blueprint.post("/audio/speech")
    async def create_speech(request: Request) -> None:
        try:
            with limit.one_more(request.ctx.key):
                await answer(request)
        except KeyLimitError:
            metrics.request(UNKNOWN, UNKNOWN, "key_limit", request.ctx.key)
            raise

    async def answer(request: Request) -> None:
        order, speech = await start(request)
        way = order.way(streams=streams)
        try:
            headers = _headers(order, speech)
            if way == "whole":
                with files.one() as grow:
                    await _send_whole(request, speech, headers, timeout, grow)
            elif way == "sse":
                await _stream(request, speech, _events(speech), EVENT_STREAM, headers, timeout)
            else:
                await _stream(request, speech, speech.parts(), speech.content_type, headers, timeout)
        finally:
            speech.stop()
            _log(request, order, speech, way)
            _count(metrics, order, speech, request.ctx.key)

    return blueprint


def _headers(order: SpeechRequest, speech: Speech) -> dict[str, str]:
    """What is known of an answer before its first byte."""
    headers = {"x-seed": str(speech.seed)}
    if speech.instruction_dropped:
        headers["x-instructions"] = "ignored"
    if speech.stand_in and speech.speaker:
        headers["x-stand-in"] = quote(speech.speaker)
    if order.ignored:
        headers["x-ignored"] = ",".join(order.ignored)
    if speech.text_notes:
        headers["x-text-notes"] = "; ".join(speech.text_notes)[:MAX_NOTES_CHARS]
    return headers


async def _events(speech: Speech) -> AsyncIterator[bytes]:
    """The file as OpenAI's server-sent events: base64 deltas, then the end with what was used."""
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
    body = await _made(speech.whole(grow), speech, timeout)
    speech.stop()
    headers = {**headers, "content-length": str(len(body))}
    if speech.capped:
        headers["x-finish-reason"] = CAPPED
    response = await request.respond(content_type=speech.content_type, headers=headers)
    sender = _Sender(response, speech, timeout)
    try:
        await sender.send(body)
        await sender.end()
    except TimeoutError as error:
        await _break_off(request, error)


async def _stream(
    request: Request,
    speech: Speech,
    parts: AsyncIterator[bytes],
    content_type: str,
    headers: dict[str, str],
    timeout: float,
) -> None:
    """Send parts as they become ready; an error before the first is still an error answer."""
    part: bytes | None = await _made(anext(parts), speech, timeout)
    # x-accel-buffering: nginx would otherwise hold the stream back until its buffer is full.
    headers = {**headers, "x-accel-buffering": "no"}
    response = await request.respond(content_type=content_type, headers=headers)
    if request.version == "1.0":
        send_until_closed(request, response)
    sender = _Sender(response, speech, timeout)
    try:
        while part is not None:
            await sender.send(part)
            part = await _made(anext(parts, None), speech, timeout)
        await sender.end()
    except (SpeechFailedError, TimeoutError) as error:
        await _break_off(request, error)


async def _made(work: Awaitable[T], speech: Speech, timeout: float) -> T:
    """What the engine makes, as long as it gets on."""
    try:
        async with while_progressing(lambda: speech.progress, timeout):
            return await work
    except TimeoutError as error:
        speech.outcome = "timed_out"
        raise NoProgressError(f"the engine has made nothing for {timeout:g} seconds; try again") from error


class _Sender:
    """Sends a body as fast as its client takes it, and no slower than it must.

    Args:
        response: what is answered.
        speech: whose audio it is.
        timeout: seconds for which the client may take nothing; 0 is for ever.
    """

    def __init__(self, response: HTTPResponse, speech: Speech, timeout: float) -> None:
        self._response, self._speech, self._timeout = response, speech, timeout
        self._waited = 0.0

    async def send(self, part: bytes | bytearray) -> None:
        """Send a part of the body.

        Raises:
            TimeoutError: the client takes nothing, or too little for too long.
        """
        view = memoryview(part)
        for start in range(0, len(view), SENT_AT_A_TIME):
            await self._bounded(self._response.send(bytes(view[start : start + SENT_AT_A_TIME])))

    async def end(self) -> None:
        """Send the mark of the body's end.

        Raises:
            TimeoutError: as for `send`.
        """
        await self._bounded(self._response.eof())  # type: ignore[no-untyped-call]

    async def _bounded(self, sending: Awaitable[None]) -> None:
        # Audio made counts, not audio sent: what is encoded at a time is short beside what a client may be late.
        allowed = self._timeout + SLOWEST_READER * self._speech.audio_seconds - self._waited
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(min(self._timeout, max(allowed, 0.0)) if self._timeout else None):
                await sending
        except TimeoutError:
            self._speech.outcome = "timed_out"
            raise
        self._waited += clock() - began


async def _break_off(request: Request, error: Exception) -> None:
    """Drop the connection without the end-of-body mark, so that no client takes what it has for the whole."""
    log.event("stream_broken", level=logging.WARNING, id=request.id, reason=type(error).__name__)
    transport = cast(asyncio.Transport, request.transport)
    if request.version == "1.0":
        reset_at_close(transport)
    transport.abort()
    # Sanic cancels the task of a lost connection, which is this one.
    await asyncio.Event().wait()


def _log(request: Request, order: SpeechRequest, speech: Speech, way: Way) -> None:
    audio, wall = speech.audio_seconds, speech.wall_seconds
    log.event(
        "speech",
        id=request.id,
        key=request.ctx.key,
        model=speech.model,
        voice=order.voice_name,
        speaker=speech.speaker,
        format=order.response_format,
        stream=None if way == "whole" else way,
        chars=len(order.input),
        ignored=",".join(order.ignored) or None,
        stand_in=speech.stand_in or None,
        seed=speech.seed,
        outcome=speech.outcome,
        finish=CAPPED if speech.capped else None,
        error=speech.error,
        audio_seconds=audio,
        queue_seconds=speech.queue_seconds,
        ttfa_seconds=speech.ttfa_seconds,
        wall_seconds=wall,
        rtf=wall / audio if audio else None,
    )


def _count(metrics: Metrics, order: SpeechRequest, speech: Speech, key: str | None) -> None:
    metrics.request(speech.model, order.response_format, speech.outcome, key)
    whole = speech.outcome == "done"
    metrics.speech(
        speech.model,
        audio_seconds=speech.audio_seconds,
        ttfa_seconds=speech.ttfa_seconds,
        rtf=speech.wall_seconds / speech.audio_seconds if whole else None,
    )
