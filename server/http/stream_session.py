"""The conversation of WS `/audio/speech/stream`, in the protocol of vLLM-Omni.

https://github.com/vllm-project/vllm-omni, `vllm_omni/entrypoints/openai/serving_speech_stream.py`. The client sends
`session.config`, then `input.text` as often as it likes and `input.done` for each utterance, at last `session.close`;
it is sent `audio.start`, the audio and `audio.done` for each unit of the text, and `session.done` for each utterance.
`input.cancel` is ours: it ends every utterance that has been begun.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from websockets.frames import CloseCode

from server import log
from server.errors import ApiError, InvalidRequestError
from server.http.capacity import Turns
from server.http.doors import Doors
from server.http.stream_config import Config, options_of, request_of
from server.http.stream_utterance import Client, Utterance
from server.http.websocket import WebSocket
from server.speech.bounded_json import LONG, TooMuchError, read_message
from server.speech.live import LiveText

CONFIG_SECONDS = 10.0
"""How long a client may take to send its configuration."""
MAX_TEXT_CHARS = 128 * 1024
"""Of one `input.text`."""
MOST_WAITING = 8
"""Utterances that a client may have begun and not heard to their end."""


class Session:
    """One socket's conversation.

    Args:
        doors: what it may use.
        request_id: for the log.
        key: the label of its key; None where none is asked for.
        turns: of which each message takes one.
        caller: digest of its key; None where none is asked for.
    """

    def __init__(
        self, doors: Doors, request_id: str, key: str | None, turns: Turns, *, caller: str | None = None
    ) -> None:
        self._doors, self._id, self._key, self._turns = doors, request_id, key, turns
        self._caller = caller
        self._client: Client
        self._config: Config | None = None
        self._open: Utterance | None = None
        """What text is added to."""
        self.utterances = 0
        """So many have been begun."""
        self._waiting: asyncio.Queue[Utterance | None] = asyncio.Queue()
        """Utterances to be said; None says that nothing more is to be said."""
        self._unheard = 0
        self._current: asyncio.Task[None] | None = None
        """Says an utterance that has not been cancelled."""
        self._last_code: CloseCode | None = None
        """With which to close once all that has been begun is heard."""

    async def run(self, socket: WebSocket) -> None:
        """Hold the conversation to its end."""
        self._client = Client(socket, self._id, self._key, self._doors.limits.timeout)
        try:
            async with asyncio.TaskGroup() as tasks:
                speaking = tasks.create_task(self._speak())
                code = await self._listen()
                speaking.cancel()
            await socket.close(code)
        except* TimeoutError:  # the client takes nothing: it would not take the end either
            socket.abort()
        except* Exception as errors:
            for error in errors.exceptions:
                log.event("unforeseen_error", level=logging.ERROR, id=self._id, error=repr(error))
            await self._client.tell(
                "error", message="the server made a mistake; its log says more", code="internal_error"
            )
            await socket.close(CloseCode.INTERNAL_ERROR)

    def leave(self) -> None:
        """The server stops: end the conversation when all that has been begun is heard."""
        self._close_when_heard(CloseCode.GOING_AWAY)

    # What the client says.

    async def _listen(self) -> CloseCode:
        """Take messages until the conversation ends; returns why it does."""
        while True:
            try:
                message = await self._next_message()
            except TimeoutError:
                late = "no session.config has come" if self._config is None else "no message has come for too long"
                await self._client.tell("error", message=f"{late}; connect again", code="timeout")
                return CloseCode.NORMAL_CLOSURE
            if message is None:
                return CloseCode.NORMAL_CLOSURE
            await self._turns.take()
            try:
                await self._take(await _object(message), long=len(message) >= LONG)
            except ApiError as error:
                await self._client.tell_error(error)
                if self._config is None:
                    return CloseCode.POLICY_VIOLATION

    async def _next_message(self) -> str | bytes | None:
        limits = self._doors.limits
        while True:
            try:
                async with asyncio.timeout((limits.idle_seconds or None) if self._config else CONFIG_SECONDS):
                    return await self._client.socket.receive()
            except TimeoutError:
                if not self._busy:
                    raise

    @property
    def _busy(self) -> bool:
        """Whether the client may hear something before it says something."""
        return self._unheard > bool(self._open) or bool(self._open and self._open.speaking)

    async def _take(self, sent: dict[str, Any], *, long: bool) -> None:
        kind = sent.get("type")
        if kind == "session.config":
            await self._configure(sent, long=long)
        elif self._config is None:
            raise InvalidRequestError("the first message is session.config")
        elif kind == "input.text":
            self._add(sent.get("text", ""), self._config)
        elif kind == "input.done":
            self._flush(self._config)
        elif kind == "input.cancel":
            self._cancel()
        elif kind == "session.close":
            self._end_open()
            self._close_when_heard(CloseCode.NORMAL_CLOSURE)
        else:
            raise InvalidRequestError(
                "type is one of session.config, input.text, input.done, input.cancel and session.close", param="type"
            )

    async def _configure(self, sent: dict[str, Any], *, long: bool) -> None:
        if self._open:
            raise InvalidRequestError("session.config is for between utterances; send input.done before it")
        # Of a dictionary, or of thousands of fields, it takes longer to read than the event loop has.
        request = (await asyncio.to_thread(request_of, sent) if long else request_of(sent)).asked_by(self._caller)
        options = options_of(sent)
        if self._config is None or (request, options) != (self._config.request, self._config.options):
            live = options.split_granularity == "token"
            await self._doors.service.voices.look()
            self._config = Config(request, options, self._doors.service.check(request, live=live))

    def _add(self, text: object, config: Config) -> None:
        if not isinstance(text, str):
            raise InvalidRequestError("text is a string", param="text")
        if len(text) > MAX_TEXT_CHARS:
            raise InvalidRequestError(f"text has at most {MAX_TEXT_CHARS} characters; send it in parts", param="text")
        if not text:
            return
        if self._open is None:
            granularity = config.options.split_granularity
            self._open = self._begin(LiveText(granularity, config.language, self._doors.limits.text_chars))
        assert self._open.text is not None
        self._open.text.feed(text)

    def _flush(self, config: Config) -> None:
        if self._open is None:
            self._begin(None)
        self._end_open()

    def _begin(self, text: LiveText | None) -> Utterance:
        assert self._config is not None
        if self._unheard >= MOST_WAITING:
            raise InvalidRequestError(f"{MOST_WAITING} utterances have not been heard yet; wait for their session.done")
        utterance = Utterance(self.utterances, self._config, text)
        self.utterances += 1
        self._unheard += 1
        self._waiting.put_nowait(utterance)
        return utterance

    def _end_open(self) -> None:
        if self._open and self._open.text:
            self._open.text.end()
        self._open = None

    def _cancel(self) -> None:
        self._open = None
        for _ in range(self._waiting.qsize()):
            if utterance := self._waiting.get_nowait():
                utterance.cancel()
            self._waiting.put_nowait(utterance)
        if self._current is not None:
            self._current.cancel()
            self._current = None

    def _close_when_heard(self, code: CloseCode) -> None:
        self._last_code = code
        if not self._unheard:
            self._waiting.put_nowait(None)

    # What the client hears.

    async def _speak(self) -> None:
        """Say one utterance after the other."""
        while utterance := await self._waiting.get():
            saying = self._current = asyncio.create_task(utterance.say(self._doors, self._client))
            try:
                await asyncio.wait([saying])
            finally:
                self._current = None
                saying.cancel()
                await asyncio.wait([saying])
            if saying.cancelled():
                utterance.cancelled = True
            else:
                saying.result()
            await utterance.end(self._client)
            self._unheard -= 1
            if self._last_code is not None and not self._unheard:
                break
        await self._client.socket.close(self._last_code or CloseCode.NORMAL_CLOSURE)


async def _object(message: str | bytes) -> dict[str, Any]:
    """Read a message.

    Raises:
        InvalidRequestError: it is no JSON object, or has very many values.
    """
    try:
        sent = await read_message(message.encode() if isinstance(message, str) else message)
    except (ValueError, RecursionError) as error:
        why = f": {error}" if isinstance(error, TooMuchError) else ""
        raise InvalidRequestError(f"a message is a JSON object in a text frame{why}") from None
    if not isinstance(sent, dict):
        raise InvalidRequestError("a message is a JSON object")
    return sent
