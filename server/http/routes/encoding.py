"""POST `/audio/encode`: samples that a client has, such as speech that it has heard, become a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import cast

from pydantic import TypeAdapter, ValidationError
from sanic import Blueprint, Request
from sanic.exceptions import RequestTimeout

from server import log
from server.audio.encoders import make_encoder
from server.audio.formats import FORMATS, AudioFormat, Encoder, MissingCodecError
from server.audio.pcm import Samples, from_s16le
from server.errors import ApiError, InvalidRequestError
from server.http.doors import Doors
from server.http.receiving import GuardedHttp
from server.http.sending import Sender, break_off
from server.metrics import Outcome
from server.speech.fields import Format
from server.speech.progress import Patience

SAMPLE_RATE = 24_000
"""Hz, of the samples of every model."""
CONTENT_TYPES = ("audio/pcm", "application/octet-stream")
"""Media types of a body of samples."""
SAMPLES = "send bare samples, 16 bit little-endian, mono, 24 kHz, as audio/pcm"
LESS = "send less of it at a time"
PIECE_BYTES = 1 << 18
"""Samples that are encoded at a time, in bytes: 5 s of audio, which take the slowest encoder a fraction of a second."""

_FORMAT: TypeAdapter[AudioFormat] = TypeAdapter(Format)


def encoding_routes(doors: Doors, mark: str) -> Blueprint:
    """Make the route.

    The body is encoded while it is received, so that of the samples only a part is in memory, and the file counts
    toward the whole files that are under way. One thread encodes for all requests, since processors are for the engine;
    what it is about to do for a client that leaves is left out, and what it does is done before the next one's turn.

    Args:
        doors: bounds what a key has under way, the files, and the time that a client may take.
        mark: what the file's metadata says.
    """
    blueprint = Blueprint("encoding")
    thread = ThreadPoolExecutor(1, "encoding")

    @blueprint.post("/audio/encode", stream=True, ctx_reads_body=True)
    async def encode(request: Request) -> None:
        with doors.keys.one_more(request.ctx.key), doors.files.one(LESS, None) as grow:
            async with _body_heard_out(request, doors.limits.timeout):
                audio_format, encoder = _encoder(request, mark)
                await answer(request, audio_format, _File(encoder, grow, thread))

    async def answer(request: Request, audio_format: AudioFormat, file: _File) -> None:
        try:
            await _receive(request, file, doors.limits.timeout)
            headers = {"content-length": str(len(file.body))}
            response = await request.respond(content_type=file.encoder.content_type, headers=headers)
            sender = Sender(response, file, doors.limits.timeout)
            try:
                await sender.send(file.body)
                await sender.end()
            except TimeoutError as error:
                await break_off(request, error)
            file.outcome = "done"
        finally:
            file.encoder.close()
            log.event(
                "encoded",
                id=request.id,
                key=request.ctx.key,
                format=audio_format,
                outcome=file.outcome,
                audio_seconds=file.audio_seconds,
            )

    return blueprint


class _File:
    """A file under way, of samples that arrive."""

    def __init__(self, encoder: Encoder, grow: Callable[[int], None], thread: ThreadPoolExecutor) -> None:
        self.encoder = encoder
        self.body = bytearray()
        self.outcome: Outcome = "stopped"
        self.audio_seconds = 0.0
        """Of the samples that were encoded."""
        self._grow, self._thread = grow, thread
        self._half = b""

    async def add(self, received: bytes) -> None:
        """Encode what has been received; half a sample waits for its other half.

        Raises:
            InvalidRequestError: the file would be too long, or this is no bare audio.
            BusyError: all files under way would be too long.
        """
        data = self._half + received
        if not self.audio_seconds and data.startswith(b"RIFF"):
            raise InvalidRequestError(f"this is a WAV file; {SAMPLES}")
        whole = len(data) & ~1
        self._half = data[whole:]
        for begin in range(0, whole, PIECE_BYTES):
            samples = from_s16le(data[begin : min(begin + PIECE_BYTES, whole)])
            await self._append(self.encoder.encode, samples)
            self.audio_seconds += samples.size / SAMPLE_RATE

    async def finish(self) -> None:
        """Write the file's end.

        Raises:
            InvalidRequestError: there are no samples, half a sample is left, or the file would be too long.
            BusyError: all files under way would be too long.
        """
        if self._half or not self.audio_seconds:
            raise InvalidRequestError(f"{'half a sample is left' if self._half else 'the body is empty'}; {SAMPLES}")
        await self._append(self.encoder.finish)
        self.encoder.complete(self.body)

    async def _append(self, work: Callable[..., bytes], *arguments: Samples) -> None:
        part = await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        self._grow(len(part))
        self.body += part


@asynccontextmanager
async def _body_heard_out(request: Request, timeout: float) -> AsyncIterator[None]:
    """Read a body that is refused to its end, since clients read no answer before they have sent all.

    It is given up if it comes in chunks, which may have no end, if its client waits for leave to send it, and if its
    rest takes longer than `timeout`.
    """
    stream = cast(GuardedHttp, request.stream)
    try:
        yield
    except ApiError:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout or None):
                while stream.request_body and stream.length is not None and not stream.expecting_continue:
                    await stream.read()
        raise


async def _receive(request: Request, file: _File, timeout: float) -> None:
    """Encode the body while it arrives.

    Raises:
        ApiError: it is refused.
        RequestTimeout: its client is too slow.
    """
    stream = cast(GuardedHttp, request.stream)
    patience = Patience(file, timeout)
    while stream.request_body:
        try:
            received = await patience.bounded(stream.read())
        except TimeoutError as error:
            stream.give_up_body()
            raise RequestTimeout("the request did not come to its end in time") from error
        if received:
            with stream.body_waits():
                await file.add(received)
    await file.finish()


def _encoder(request: Request, mark: str) -> tuple[AudioFormat, Encoder]:
    """The format that the request's query names, and its encoder.

    Raises:
        InvalidRequestError: there is no such format or no library for it, or the body is something else than samples.
    """
    try:
        audio_format = _FORMAT.validate_python(request.args.get("response_format", "mp3"))
    except ValidationError:
        raise InvalidRequestError(
            f"response_format must be one of {', '.join(FORMATS)}", param="response_format"
        ) from None
    kind = request.headers.getone("content-type", CONTENT_TYPES[0]).partition(";")[0].strip().lower()
    if request.headers.getone("content-encoding", "identity") != "identity":
        raise InvalidRequestError(f"the body is compressed; {SAMPLES}")
    if kind not in CONTENT_TYPES:
        raise InvalidRequestError(f"the body is {kind or 'of no kind'}; {SAMPLES}")
    try:
        return audio_format, make_encoder(audio_format, SAMPLE_RATE, mark)
    except MissingCodecError as error:
        raise InvalidRequestError(str(error), param="response_format") from None
