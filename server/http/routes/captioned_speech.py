"""POST `/dev/captioned_speech`: speech in base64, and when what is heard, in Kokoro-FastAPI's shape.

Where Kokoro-FastAPI has words, an answer has sentences, or chunks if the request asks for these.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from sanic import Blueprint, Request

from server.errors import InvalidRequestError
from server.http.base64_parts import base64_length, base64_parts
from server.http.doors import Doors
from server.http.json_array import json_array
from server.http.routes.speech import send_made, speak, speech_headers, stream
from server.speech.captions import Caption
from server.speech.fields import Switch
from server.speech.foreign_fields import is_absent
from server.speech.progress import made
from server.speech.rendering import Speech
from server.speech.request import SpeechRequest, Way
from server.speech.request_body import json_object
from server.speech.request_parsing import of_object

LINES = "application/x-ndjson"
_STREAM_FORMAT = "stream_format"
"""A field that is checked and asks for an answer that is sent while it is made; which of its values it has is ignored,
since there are no events here."""


class CaptionOptions(BaseModel):
    """What a request has beside the fields of a speech request."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    return_timestamps: Switch = True


def captioned_speech_routes(doors: Doors) -> Blueprint:
    """The route over what `doors` has, with the same limits as `/audio/speech`."""
    blueprint = Blueprint("captioned_speech")

    def read(body: bytes, **more: Any) -> SpeechRequest:
        return captioned(json_object(body, **more), streams=doors.streams)

    @blueprint.post("/dev/captioned_speech", ctx_takes_recordings=True)
    async def create_captioned_speech(request: Request) -> None:
        async def send(speech_request: SpeechRequest, speech: Speech, way: Way) -> None:
            headers = speech_headers(speech_request, speech)
            if way == "whole":
                await _send_whole(request, speech, headers, doors)
            else:
                await stream(request, speech, _lines(speech), LINES, headers, doors.limits.timeout)

        await speak(doors, request, read, send)

    return blueprint


def captioned(sent: dict[str, Any], *, streams: bool) -> SpeechRequest:
    """Read the fields of a request.

    Args:
        sent: the fields by the client's names.
        streams: whether the answer is sent while it is made if the request does not say.

    Raises:
        InvalidRequestError: one of them is wrong.
    """
    given = {name: sent[name] for name in CaptionOptions.model_fields if sent.get(name) is not None}
    try:
        options = CaptionOptions.model_validate(given)
    except ValidationError:
        raise InvalidRequestError("return_timestamps must be true or false", param="return_timestamps") from None
    fields = {name: value for name, value in sent.items() if name not in CaptionOptions.model_fields}
    if not options.return_timestamps:
        fields.pop("timestamps", None)
    elif is_absent(fields.get("timestamps")):
        fields["timestamps"] = "sentence" if is_absent(fields.get("exact_frames")) else "chunk"
    if is_absent(fields.get("stream")) and is_absent(fields.get(_STREAM_FORMAT)):
        fields["stream"] = streams
    request = of_object(fields)
    return request.ignoring((*request.ignored, _STREAM_FORMAT)) if request.stream_format else request


async def _send_whole(request: Request, speech: Speech, headers: dict[str, str], doors: Doors) -> None:
    with doors.files.one() as grow:
        body = await made(speech.whole(grow), speech, doors.limits.timeout)
        times = await asyncio.to_thread(json_array, _words(await speech.captions())) if speech.times else "null"
        before = b'{"audio": "'
        behind = f'", "audio_format": {json.dumps(speech.content_type)}, "timestamps": {times}}}'.encode()
        length = len(before) + base64_length(body) + len(behind)
        parts = chain([before], base64_parts(body), [behind])
        await send_made(request, speech, parts, length, "application/json", headers, doors.limits.timeout)


async def _lines(speech: Speech) -> AsyncIterator[bytes]:
    """Yield the file in parts, an object a line, each with the times of what has ended since the line before."""
    async for part in speech.parts():
        yield _line(speech, part, await speech.due_captions())
    if left := await speech.due_captions():
        yield _line(speech, b"", left)


def _line(speech: Speech, part: bytes, captions: list[Caption]) -> bytes:
    times = list(_words(captions)) if speech.times else None
    fields = {"audio": b64encode(part).decode(), "audio_format": speech.content_type, "timestamps": times}
    return f"{json.dumps(fields)}\n".encode()


def _words(captions: Iterable[Caption]) -> Iterator[dict[str, Any]]:
    """Yield what is said and has ended, as Kokoro-FastAPI has words."""
    for caption in captions:
        if not caption.pause and caption.end_time is not None:
            yield {"word": caption.text, "start_time": caption.start_time, "end_time": caption.end_time}
