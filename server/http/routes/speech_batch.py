"""POST `/audio/speech/batch`: several texts, answered together, in vLLM-Omni's shape."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from sanic import Blueprint, Request
from sanic.response import HTTPResponse

from server.errors import ApiError, InvalidRequestError, KeyLimitError
from server.http.base64_parts import base64_parts
from server.http.doors import Doors
from server.http.json_array import json_array
from server.metrics import UNKNOWN, Outcome
from server.speech import telling
from server.speech.batch import Item, ignored, parse_batch
from server.speech.progress import Patience, made


def speech_batch_routes(doors: Doors) -> Blueprint:
    """The route over what `doors` has. A batch is one request under way with its key, and leaves others a row."""
    blueprint = Blueprint("speech_batch")

    @blueprint.post("/audio/speech/batch", ctx_takes_recordings=True)
    async def create_batch(request: Request) -> None:
        try:
            with doors.keys.one_more(request.ctx.key):
                await answer(request)
        except KeyLimitError:
            doors.metrics.request(UNKNOWN, UNKNOWN, "key_limit", request.ctx.key)
            raise

    async def answer(request: Request) -> None:
        headers = request.headers
        items = await asyncio.to_thread(
            parse_batch,
            request.body,
            content_type=headers.getone("content-type", ""),
            content_encoding=headers.getone("content-encoding", ""),
            most=request.app.config.REQUEST_MAX_SIZE,
        )
        await _Batch(doors, request, items).answer()

    return blueprint


@dataclass(frozen=True)
class _Result:
    """An item's result: what is told of it, its file where it has one, and its times as JSON if they were asked for."""

    fields: dict[str, Any]
    body: bytearray | None = None
    audio_seconds: float = 0.0
    times: str | None = None


class _Batch:
    """A batch under way: its items are made side by side, and sent in order as they are ready."""

    def __init__(self, doors: Doors, request: Request, items: list[Item]) -> None:
        self._doors, self._request, self._items = doors, request, items
        self._held = [ExitStack() for _ in items]
        """What each item takes until it is sent."""
        self._turn = asyncio.Semaphore(1)
        """Of the items: only one is made where the model is not loaded yet."""
        self.outcome: Outcome = "stopped"
        self.audio_seconds = 0.0
        """Of the items whose turn to be sent has come."""
        self._patience = Patience(self, doors.limits.timeout)

    async def answer(self) -> None:
        self._turn = asyncio.Semaphore(self._at_once())
        tasks = [asyncio.create_task(self._make(index, item)) for index, item in enumerate(self._items)]
        try:
            headers = {"x-accel-buffering": "no"}
            if names := ignored(self._items):
                headers["x-ignored"] = ",".join(names)
            response = await self._request.respond(content_type="application/json", headers=headers)
            failed = 0
            await self._send(response, f'{{"id": {json.dumps(f"speech-batch-{self._request.id}")}, "results": [')
            for index, task in enumerate(tasks):
                result = await task
                failed += result.body is None
                await self._send_result(response, result, ", " if index else "")
                self._held[index].close()
            total = len(tasks)
            counts = f'"total": {total}, "succeeded": {total - failed}, "failed": {failed}'
            await self._send(response, f"], {counts}}}")
            await self._patience.bounded(response.eof())  # type: ignore[no-untyped-call]
        except TimeoutError:  # the client takes nothing
            transport = self._request.transport
            if transport is not None:
                transport.abort()  # type: ignore[attr-defined]
        finally:
            for task in tasks:
                task.cancel()
            for held in self._held:  # before the wait, in which this may be cancelled
                held.close()
            await asyncio.wait(tasks)

    def _at_once(self) -> int:
        """Items side by side: all rows of the model but one, which is for others."""
        first = next((item for item in self._items if not isinstance(item, InvalidRequestError)), None)
        with suppress(ApiError):
            if first is not None:
                pool = self._doors.service.pool
                engine = pool.loaded().get(pool.bundles.resolve(first.model).id)
                return max(1, engine.rows - 1) if engine else 1
        return 1

    async def _make(self, index: int, item: Item) -> _Result:
        """An item's result; what is wrong with it is told in its place."""
        try:
            if isinstance(item, InvalidRequestError):
                self._doors.metrics.request(UNKNOWN, UNKNOWN, "invalid", self._request.ctx.key)
                raise item
            async with self._turn:
                return await self._speak(index, item)
        except ApiError as error:
            told = {"error": error.message, "code": error.code, "param": error.param}
            fields = {"index": index, "status": "error", **{name: value for name, value in told.items() if value}}
            return _Result(fields)

    async def _speak(self, index: int, item: Any) -> _Result:
        doors, key = self._doors, self._request.ctx.key
        try:
            speech = await doors.service.start(item.asked_by(self._request.ctx.caller))
        except ApiError as error:
            model = UNKNOWN
            with suppress(ApiError):
                model = doors.service.pool.bundles.resolve(item.model).id
            doors.metrics.request(model, item.response_format, telling.refusal(error), key)
            raise
        try:
            grow = self._held[index].enter_context(doors.files.one())
            body = await made(speech.whole(grow), speech, doors.limits.timeout)
        finally:
            speech.stop()
            telling.ended(doors.metrics, item, speech, request_id=f"{self._request.id}.{index}", key=key)
        tokens, frames = speech.usage
        details = {"text_tokens": tokens, "audio_tokens": 0}
        usage = {"input_tokens": tokens, "output_tokens": frames, "total_tokens": tokens + frames}
        fields = {
            "index": index,
            "status": "success",
            "media_type": speech.content_type,
            "usage": {**usage, "input_token_details": details},
            "seed": speech.seed,
        }
        times = None
        if speech.times:
            captions = await speech.captions()
            times = await asyncio.to_thread(json_array, (caption.told() for caption in captions))
        return _Result(fields, body, speech.audio_seconds, times)

    async def _send_result(self, response: HTTPResponse, result: _Result, before: str) -> None:
        fields = json.dumps(result.fields)
        if result.body is None:
            await self._send(response, before + fields)
            return
        self.audio_seconds += result.audio_seconds
        times = "" if result.times is None else f', "timestamps": {result.times}'
        await self._send(response, f'{before}{fields.removesuffix("}")}{times}, "audio_data": "')
        for part in base64_parts(result.body):
            await self._send(response, part.decode())
            await asyncio.sleep(0)
        await self._send(response, '"}')

    async def _send(self, response: HTTPResponse, text: str) -> None:
        await self._patience.bounded(response.send(text))
