"""A WebSocket's conversation between an ASGI engine and the server, and what both speak in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, ProtocolError
from websockets.frames import CloseCode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST_SAID = 1 << 18
"""Characters or bytes of a WebSocket's client that may wait for the server before the engine is asked for no more of
them. Only behind them would it say that the client has left."""
_OF_A_MESSAGE = 256
"""Characters as which a message counts beside its own."""
_NO_CODE, _LOST = 1005, 1006
"""Codes of a WebSocket that ended without saying why, or without an end; neither can be sent."""


async def converse(server: ClientConnection, receive: Receive, send: Send) -> None:
    """Hand over what either says to the other until one of them ends it; the server's connection is then broken off."""
    left = asyncio.Event()
    try:
        await either(_hear(server, send, left), _speak(server, receive, left))
    finally:
        server.transport.abort()


async def either(*both: Coroutine[Any, Any, None]) -> None:
    """Do two things until one of them ends, and cancel the other; of two that end at once the first counts."""
    tasks = [asyncio.create_task(each) for each in both]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await next(task for task in tasks if task.done())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _hear(server: ClientConnection, send: Send, left: asyncio.Event) -> None:
    """Send on what the server says, until the client has left; return when the conversation has ended."""
    try:
        while True:
            message = await server.recv()
            kind = "text" if isinstance(message, str) else "bytes"
            if not left.is_set():
                await send({"type": "websocket.send", kind: message})
    except ConnectionClosed:
        if left.is_set():
            return
        code = server.close_code
        if code is None or code == _LOST:
            code = CloseCode.INTERNAL_ERROR
        elif code == _NO_CODE:
            code = CloseCode.NORMAL_CLOSURE
        await send({"type": "websocket.close", "code": int(code), "reason": server.close_reason or ""})


async def _speak(server: ClientConnection, receive: Receive, left: asyncio.Event) -> None:
    """Hand over what the client says; return when it has ended the conversation, and set `left` before.

    That is heard while the server has no time for what was said before; what it has not taken by then is dropped.
    """
    said = _Said()
    ended: list[Message] = []
    await either(_listen(receive, said, ended), _hand_over(server, said))
    left.set()
    code = ended[0].get("code") or _NO_CODE
    with suppress(ProtocolError, ConnectionClosed):  # such as a code that cannot be sent
        if code != _LOST:
            reason = ended[0].get("reason") or ""
            await server.close(CloseCode.NORMAL_CLOSURE if code == _NO_CODE else code, reason)


class _Said:
    """What the client has said and the server has not taken yet: as many messages as `MOST_SAID` has room for."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._size = 0
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, message: str | bytes) -> None:
        """Add a message, once there is room."""
        await self._room.wait()
        self._messages.put_nowait(message)
        self._resize(_OF_A_MESSAGE + len(message))

    async def get(self) -> str | bytes:
        """Take the next message, once there is one."""
        message = await self._messages.get()
        self._resize(-_OF_A_MESSAGE - len(message))
        return message

    def _resize(self, more: int) -> None:
        self._size += more
        if self._size < MOST_SAID:
            self._room.set()
        else:
            self._room.clear()


async def _listen(receive: Receive, said: _Said, ended: list[Message]) -> None:
    """Put what the client says into `said`, and at last its leaving into `ended`."""
    while (message := await receive())["type"] == "websocket.receive":
        text: str | None = message.get("text")
        await said.put(message["bytes"] if text is None else text)
    ended.append(message)


async def _hand_over(server: ClientConnection, said: _Said) -> None:
    while True:
        message = await said.get()
        with suppress(ConnectionClosed):
            await server.send(message)
