"""One utterance of WS `/audio/speech/stream`: its units are spoken in order, and the client is told of each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from contextlib import aclosing

from server.errors import ApiError
from server.http.doors import Doors
from server.http.stream_config import Config
from server.http.websocket import WebSocket
from server.speech import telling
from server.speech.live import LiveSpeech, LiveText, Unit
from server.speech.progress import Patience, made


class Client:
    """Who hears: its socket, which is given up if it does not take in time what it is sent.

    Args:
        socket: that of the conversation.
        request_id: for the log.
        key: the label of its key; None where none is asked for.
        timeout: seconds that it may take; 0 is any time.
    """

    def __init__(self, socket: WebSocket, request_id: str, key: str | None, timeout: float) -> None:
        self.socket, self.id, self.key = socket, request_id, key
        self._timeout = timeout

    async def tell(self, kind: str, **fields: object) -> None:
        """Send an event; raises `TimeoutError` if the client does not take it."""
        await self.socket.send(json.dumps({"type": kind, **fields}), self._taken_in_time)

    async def tell_error(self, error: ApiError, **place: int) -> None:
        """Send what is wrong, as for `tell`."""
        await self.tell("error", message=error.message, code=error.code, param=error.param, **place)

    async def _taken_in_time(self, sending: Awaitable[None]) -> None:
        async with asyncio.timeout(self._timeout or None):
            await sending


class Utterance:
    """What is said between two `input.done`.

    Args:
        index: of the utterance, from 0.
        config: how it is spoken.
        text: what is said; None where nothing is.
    """

    def __init__(self, index: int, config: Config, text: LiveText | None) -> None:
        self.text = text
        self.cancelled = False
        self._index, self._config = index, config
        self._sentences = 0
        """Units that have been begun."""
        self._said = 0
        """Those of them that have been made to their end."""
        self._unit_open = False
        """Whether the last of them has had its `audio.start` and not its `audio.done`."""
        self._failed = False
        """Whether one of them could not be spoken; the rest of the text is dropped."""

    @property
    def speaking(self) -> bool:
        """Whether a unit has been asked for that has not been made to its end."""
        return self.text is not None and not self._failed and self.text.taken > self._said

    def cancel(self) -> None:
        """Say nothing of it, if that has not begun."""
        self.text, self.cancelled = None, True

    async def say(self, doors: Doors, client: Client) -> None:
        """Speak the units as their text comes; the client is told of what cannot be spoken, which ends the speech.

        Raises:
            TimeoutError: the client takes nothing.
        """
        text = self.text
        if text is None:
            return
        speech = LiveSpeech(doors.service, self._config.request, text)
        unit: Unit | None = None
        try:
            with doors.keys.one_more(client.key):
                async with aclosing(speech.units()) as units:
                    async for unit in units:
                        await self._send(unit, text, doors, client)
        except ApiError as error:
            self._failed = True
            if unit is None or unit.speech.outcome == "done":
                request = self._config.request
                model = doors.service.pool.bundles.resolve(request.model).id
                doors.metrics.request(model, request.response_format, telling.refusal(error), client.key)
            await client.tell_error(error, **self._place)
            if self._unit_open:
                await self._end_unit(client, error=True)
            await text.drop()

    async def end(self, client: Client) -> None:
        """Tell the client that the utterance is over."""
        told = {"cancelled": True} if self.cancelled else {}
        if self._unit_open:
            await self._end_unit(client, **told)
        await client.tell("session.done", utterance_index=self._index, total_sentences=self._sentences, **told)

    async def _send(self, unit: Unit, text: LiveText, doors: Doors, client: Client) -> None:
        self._sentences += 1
        way = "socket" if self._config.options.stream_audio else "whole"
        sent = 0
        patience = Patience(unit.speech, doors.limits.timeout)
        try:
            if way == "whole":
                with doors.files.one() as grow:
                    whole = await made(unit.speech.whole(grow), unit.speech, doors.limits.timeout)
                    sent += await self._send_part(whole, unit, client, patience)
            else:
                async with aclosing(unit.speech.parts()) as parts:
                    while part := await made(anext(parts, b""), unit.speech, doors.limits.timeout):
                        sent += await self._send_part(part, unit, client, patience)
        finally:
            name = f"{client.id}.{self._index}.{self._sentences - 1}"
            chars = text.chars if text.granularity == "token" else None
            telling.ended(
                doors.metrics, unit.request, unit.speech, request_id=name, key=client.key, way=way, chars=chars
            )
        self._said += 1
        finish = telling.CAPPED if unit.speech.capped else None
        await self._end_unit(client, total_bytes=sent, seed=unit.speech.seed, finish_reason=finish)

    async def _send_part(self, part: bytes | bytearray, unit: Unit, client: Client, patience: Patience) -> int:
        if not self._unit_open:
            self._unit_open = True
            form = {"format": unit.request.response_format, "sample_rate": unit.speech.sample_rate, "channels": 1}
            await client.tell("audio.start", **self._place, sentence_text=unit.text, **form)
        await client.socket.send(part, patience.bounded)
        return len(part)

    async def _end_unit(self, client: Client, *, error: bool = False, **told: object) -> None:
        self._unit_open = False
        await client.tell("audio.done", **self._place, **told, error=error)

    @property
    def _place(self) -> dict[str, int]:
        return {"utterance_index": self._index, "sentence_index": max(self._sentences - 1, 0)}
