"""POST `/audio/speech/batch`: several texts, answered together, in vLLM-Omni's shape."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from contextlib import ExitStack, suppress
from typing import Any

from sanic import Blueprint, Request

from server.errors import ApiError, InvalidRequestError, KeyLimitError
from server.http.routes.speech_stream import Doors
from server.metrics import UNKNOWN
from server.speech import telling
from server.speech.batch import Item, parse_batch
from server.speech.progress import made

SENT_AT_A_TIME = 1 << 16
"""Bytes: that the client takes something is noticed so often."""


def speech_batch_routes(doors: Doors) -> Blueprint:
    """The route over what `doors` has. A batch is one request under way with its key, and leaves others a row."""
    blueprint = Blueprint("speech_batch")

    @blueprint.post("/audio/speech/batch")
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
        )
        await _Batch(doors, request, items).answer()

    return blueprint


class _Batch:
    """A batch under way: its items are made side by side, and sent in order as they are ready."""

    def __init__(self, doors: Doors, request: Request, items: list[Item]) -> None:
        self._doors, self._request, self._items = doors, request, items
        self._held = [ExitStack() for _ in items]
        """What each item takes until it is sent."""
        self._turn = asyncio.Semaphore(1)
        """Of the items: only one is made where the model is not loaded yet."""

    async def answer(self) -> None:
        self._turn = asyncio.Semaphore(self._at_once())
        tasks = [asyncio.create_task(self._make(index, item)) for index, item in enumerate(self._items)]
        try:
            response = await self._request.respond(content_type="application/json", headers={"x-accel-buffering": "no"})
            failed = 0
            await self._send(response, f'{{"id": {json.dumps(f"speech-batch-{self._request.id}")}, "results": [')
            for index, task in enumerate(tasks):
                result = await task
                failed += result["status"] == "error"
                await self._send(response, (", " if index else "") + json.dumps(result))
                self._held[index].close()
            total = len(tasks)
            counts = f'"total": {total}, "succeeded": {total - failed}, "failed": {failed}'
            await self._send(response, f"], {counts}}}")
            await response.eof()
        except TimeoutError:  # the client takes nothing
            transport = self._request.transport
            if transport is not None:
                transport.abort()  # type: ignore[attr-defined]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for held in self._held:
                held.close()

    def _at_once(self) -> int:
        """Items side by side: all rows of the model but one, which is for others."""
        first = next((item for item in self._items if not isinstance(item, InvalidRequestError)), None)
        with suppress(ApiError):
            if first is not None:
                pool = self._doors.service.pool
                engine = pool.loaded().get(pool.bundles.resolve(first.model).id)
                return max(1, engine.rows - 1) if engine else 1
        return 1

    async def _make(self, index: int, item: Item) -> dict[str, Any]:
        """An item's result; what is wrong with it is told in its place."""
        try:
            if isinstance(item, InvalidRequestError):
                self._doors.metrics.request(UNKNOWN, UNKNOWN, "invalid", self._request.ctx.key)
                raise item
            async with self._turn:
                return await self._speak(index, item)
        except ApiError as error:
            told = {"error": error.message, "code": error.code, "param": error.param}
            return {"index": index, "status": "error", **{name: value for name, value in told.items() if value}}

    async def _speak(self, index: int, item: Any) -> dict[str, Any]:
        doors, key = self._doors, self._request.ctx.key
        try:
            speech = await doors.service.start(item)
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
        audio = await asyncio.to_thread(b64encode, body)
        return {
            "index": index,
            "status": "success",
            "audio_data": audio.decode(),
            "media_type": speech.content_type,
            "usage": {**usage, "input_token_details": details},
            "seed": speech.seed,
        }

    async def _send(self, response: Any, text: str) -> None:
        data = text.encode()
        for start in range(0, len(data), SENT_AT_A_TIME):
            async with asyncio.timeout(self._doors.limits.timeout or None):
                await response.send(data[start : start + SENT_AT_A_TIME])
