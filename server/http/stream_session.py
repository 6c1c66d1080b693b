"""The conversation of WS `/audio/speech/stream`, in the protocol of vLLM-Omni.

https://github.com/vllm-project/vllm-omni, `vllm_omni/entrypoints/openai/serving_speech_stream.py`. The client sends
`session.config`, then `input.text` as often as it likes and `input.done` for each utterance, at last `session.close`;
it is sent `audio.start`, the audio and `audio.done` for each unit of the text, and `session.done` for each utterance.
`input.cancel` is ours: it ends every utterance that has been begun.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from websockets.frames import CloseCode

from server import log
from server.errors import ApiError, InvalidRequestError, TooManyConnectionsError
from server.http.access import KeyLimit
from server.http.capacity import Turns
from server.http.websocket import WebSocket
from server.metrics import Metrics
from server.speech import telling
from server.speech.fields import Switch
from server.speech.live import LiveSpeech, LiveText, Unit
from server.speech.progress import Patience, made
from server.speech.rendering import WholeFiles
from server.speech.request import SpeechRequest, of_object
from server.speech.service import SpeechService
from server.text.live import GRANULARITIES, Granularity

CONFIG_SECONDS = 10.0
"""How long a client may take to send its configuration."""
MAX_TEXT_CHARS = 128 * 1024
"""Of one `input.text`."""
MOST_WAITING = 8
"""Utterances that a client may have begun and not heard to their end."""
DEFAULT_FORMAT = "wav"
ANY_TEXT = "a"
"""Stands for the text of a configuration, which has none."""


class StreamOptions(BaseModel):
    """What a session's configuration has beside the fields of a speech request."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    stream_audio: Switch = False
    """Whether the audio of a unit is sent while it is made, in parts, or as one file."""
    split_granularity: Granularity = "none"
    """What is spoken at once: all of an utterance, its sentences, its clauses, or whatever has come of it."""
    word_timestamps: Switch = False


class Config(NamedTuple):
    """A session's configuration, until another one is sent."""

    request: SpeechRequest
    options: StreamOptions
    language: str | None
    """ISO 639-1 code; None goes by the text's script."""


@dataclass(frozen=True)
class StreamLimits:
    """What sockets may take.

    Attributes:
        sockets: open ones.
        idle_seconds: without a message, while nothing is spoken, after which one is closed; 0 is never.
        timeout: seconds without progress, of the engine or of the client, after which speech is ended; 0 is never.
        text_chars: of an utterance.
        message_bytes: of any message.
    """

    sockets: int
    idle_seconds: float
    timeout: float
    text_chars: int
    message_bytes: int


@dataclass(frozen=True)
class Doors:
    """What all sockets share."""

    service: SpeechService
    metrics: Metrics
    keys: KeyLimit
    files: WholeFiles
    limits: StreamLimits
    sessions: set[Session] = field(default_factory=set)

    @contextmanager
    def one_more(self, session: Session) -> Iterator[None]:
        """Count a session while it lasts.

        Raises:
            TooManyConnectionsError: there are as many already.
        """
        if len(self.sessions) >= self.limits.sockets:
            raise TooManyConnectionsError("there are too many WebSockets; try again soon")
        self.sessions.add(session)
        try:
            yield
        finally:
            self.sessions.discard(session)


class _Utterance:
    """What is said between two `input.done`; without text where nothing is."""

    def __init__(self, index: int, config: Config, text: LiveText | None) -> None:
        self.index = index
        self.config = config
        self.text = text
        self.sentences = 0
        """Units that have been begun."""
        self.said = 0
        """Those of them that have been made to their end."""
        self.unit_open = False
        """Whether the last of them has had its `audio.start` and not its `audio.done`."""
        self.failed = False
        """Whether one of them could not be spoken; the rest of the text is dropped."""

    @property
    def speaking(self) -> bool:
        """Whether a unit has been asked for that has not been made to its end."""
        return self.text is not None and not self.failed and self.text.taken > self.said


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
        self._socket: WebSocket
        self._config: Config | None = None
        self._open: _Utterance | None = None
        """What text is added to."""
        self.utterances = 0
        """So many have been begun."""
        self._waiting: asyncio.Queue[_Utterance] = asyncio.Queue()
        self._unheard = 0
        self._current: asyncio.Task[None] | None = None
        """Says an utterance that has not been cancelled."""
        self._last_code: CloseCode | None = None
        """With which to close once all that has been begun is heard."""

    async def run(self, socket: WebSocket) -> None:
        """Hold the conversation to its end."""
        self._socket = socket
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
            await self._tell("error", message="the server made a mistake; its log says more", code="internal_error")
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
                await self._tell("error", message=f"{late}; connect again", code="timeout")
                return CloseCode.NORMAL_CLOSURE
            if message is None:
                return CloseCode.NORMAL_CLOSURE
            await self._turns.take()
            try:
                self._take(message)
            except ApiError as error:
                await self._tell_error(error)
                if self._config is None:
                    return CloseCode.POLICY_VIOLATION

    async def _next_message(self) -> str | bytes | None:
        limits = self._doors.limits
        while True:
            try:
                async with asyncio.timeout((limits.idle_seconds or None) if self._config else CONFIG_SECONDS):
                    return await self._socket.receive()
            except TimeoutError:
                if not self._busy:
                    raise

    @property
    def _busy(self) -> bool:
        """Whether the client may hear something before it says something."""
        return self._unheard > bool(self._open) or bool(self._open and self._open.speaking)

    def _take(self, message: str | bytes) -> None:
        try:
            sent = json.loads(message)
        except (ValueError, RecursionError):
            raise InvalidRequestError("a message is a JSON object in a text frame") from None
        if not isinstance(sent, dict):
            raise InvalidRequestError("a message is a JSON object")
        kind = sent.get("type")
        if kind == "session.config":
            self._configure(sent)
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

    def _configure(self, sent: dict[str, Any]) -> None:
        if self._open:
            raise InvalidRequestError("session.config is for between utterances; send input.done before it")
        request = of_object({"response_format": DEFAULT_FORMAT, **_said(sent), "input": ANY_TEXT})
        request = request.asked_by(self._caller)
        options = _options(sent)
        if self._config is None or (request, options) != (self._config.request, self._config.options):
            live = options.split_granularity == "token"
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

    def _begin(self, text: LiveText | None) -> _Utterance:
        assert self._config is not None
        if self._unheard >= MOST_WAITING:
            raise InvalidRequestError(f"{MOST_WAITING} utterances have not been heard yet; wait for their session.done")
        utterance = _Utterance(self.utterances, self._config, text)
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
            utterance = self._waiting.get_nowait()
            utterance.text = None
            self._waiting.put_nowait(utterance)
        if self._current is not None:
            self._current.cancel()
            self._current = None

    def _close_when_heard(self, code: CloseCode) -> None:
        self._last_code = code
        if not self._unheard:
            self._waiting.put_nowait(_END)

    # What the client hears.

    async def _speak(self) -> None:
        """Say one utterance after the other."""
        while (utterance := await self._waiting.get()) is not _END:
            saying = self._current = asyncio.create_task(self._say(utterance))
            try:
                await asyncio.wait([saying])
            finally:
                self._current = None
                saying.cancel()
                await asyncio.wait([saying])
            cancelled = saying.cancelled()
            if not cancelled:
                saying.result()
            await self._end(utterance, cancelled=cancelled)
            self._unheard -= 1
            if self._last_code is not None and not self._unheard:
                break
        await self._socket.close(self._last_code or CloseCode.NORMAL_CLOSURE)

    async def _say(self, utterance: _Utterance) -> None:
        text = utterance.text
        if text is None:
            return
        speech = LiveSpeech(self._doors.service, utterance.config.request, text)
        unit: Unit | None = None
        try:
            with self._doors.keys.one_more(self._key):
                async with aclosing(speech.units()) as units:
                    async for unit in units:
                        await self._send(unit, utterance)
        except ApiError as error:
            utterance.failed = True
            if unit is None or unit.speech.outcome == "done":
                request = utterance.config.request
                model = self._doors.service.pool.bundles.resolve(request.model).id
                self._doors.metrics.request(model, request.response_format, telling.refusal(error), self._key)
            await self._tell_error(error, **self._place(utterance))
            if utterance.unit_open:
                await self._end_unit(utterance, error=True)
            await text.drop()

    async def _send(self, unit: Unit, utterance: _Utterance) -> None:
        utterance.sentences += 1
        way = "socket" if utterance.config.options.stream_audio else "whole"
        sent = 0
        patience = Patience(unit.speech, self._doors.limits.timeout)
        try:
            if way == "whole":
                with self._doors.files.one() as grow:
                    whole = await made(unit.speech.whole(grow), unit.speech, self._doors.limits.timeout)
                    sent += await self._send_part(whole, unit, utterance, patience)
            else:
                async with aclosing(unit.speech.parts()) as parts:
                    while part := await made(anext(parts, b""), unit.speech, self._doors.limits.timeout):
                        sent += await self._send_part(part, unit, utterance, patience)
        finally:
            name = f"{self._id}.{utterance.index}.{utterance.sentences - 1}"
            live = utterance.text is not None and utterance.text.granularity == "token"
            chars = utterance.text.chars if utterance.text and live else None
            metrics = self._doors.metrics
            telling.ended(metrics, unit.request, unit.speech, request_id=name, key=self._key, way=way, chars=chars)
        utterance.said += 1
        finish = telling.CAPPED if unit.speech.capped else None
        await self._end_unit(utterance, total_bytes=sent, seed=unit.speech.seed, finish_reason=finish)

    async def _send_part(self, part: bytes | bytearray, unit: Unit, utterance: _Utterance, patience: Patience) -> int:
        if not utterance.unit_open:
            utterance.unit_open = True
            form = {"format": unit.request.response_format, "sample_rate": unit.speech.sample_rate, "channels": 1}
            await self._tell("audio.start", **self._place(utterance), sentence_text=unit.text, **form)
        await self._socket.send(part, patience.bounded)
        return len(part)

    async def _end_unit(self, utterance: _Utterance, *, error: bool = False, **told: object) -> None:
        utterance.unit_open = False
        await self._tell("audio.done", **self._place(utterance), **told, error=error)

    async def _end(self, utterance: _Utterance, *, cancelled: bool) -> None:
        told = {"cancelled": True} if cancelled else {}
        if utterance.unit_open:
            await self._end_unit(utterance, **told)
        index, total = utterance.index, utterance.sentences
        await self._tell("session.done", utterance_index=index, total_sentences=total, **told)

    @staticmethod
    def _place(utterance: _Utterance) -> dict[str, int]:
        return {"utterance_index": utterance.index, "sentence_index": max(utterance.sentences - 1, 0)}

    async def _tell_error(self, error: ApiError, **place: int) -> None:
        await self._tell("error", message=error.message, code=error.code, param=error.param, **place)

    async def _tell(self, kind: str, **fields: object) -> None:
        await self._socket.send(json.dumps({"type": kind, **fields}), self._taken_in_time)

    async def _taken_in_time(self, sending: Awaitable[None]) -> None:
        async with asyncio.timeout(self._doors.limits.timeout or None):
            await sending


_END = _Utterance(-1, None, None)  # type: ignore[arg-type]
"""Says that nothing more is to be said."""


def _said(sent: dict[str, Any]) -> dict[str, Any]:
    """Fields of a configuration that may be those of a speech request."""
    own = {"type", "stream", "stream_format", *StreamOptions.model_fields}
    return {name: value for name, value in sent.items() if name not in own and value is not None}


def _options(sent: dict[str, Any]) -> StreamOptions:
    given = {name: sent[name] for name in StreamOptions.model_fields if sent.get(name) is not None}
    try:
        options = StreamOptions.model_validate(given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        wanted = f"one of {', '.join(GRANULARITIES)}" if name == "split_granularity" else "true or false"
        raise InvalidRequestError(f"{name} must be {wanted}", param=name) from None
    if options.word_timestamps:
        raise InvalidRequestError("word_timestamps is not available here; leave it out", param="word_timestamps")
    return options
