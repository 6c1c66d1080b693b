"""WS `/audio/speech/stream`: text that arrives while it is spoken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sanic import Blueprint, Request

from server import log
from server.errors import StoppingError, TooManyConnectionsError
from server.http.doors import Doors
from server.http.stream_session import Session
from server.http.websocket import WebSocket


def speech_stream_routes(doors: Doors) -> Blueprint:
    """The route over what `doors` has."""
    blueprint = Blueprint("speech_stream")
    sessions: set[Session] = set()

    @contextmanager
    def one_more(session: Session) -> Iterator[None]:
        """Count a session while it lasts."""
        if len(sessions) >= doors.limits.sockets:
            raise TooManyConnectionsError("there are too many WebSockets; try again soon")
        sessions.add(session)
        try:
            yield
        finally:
            sessions.discard(session)

    async def stream(request: Request) -> None:
        if request.app.ctx.draining:
            raise StoppingError("the server is stopping; try again soon")
        session = Session(doors, str(request.id), request.ctx.key, request.app.ctx.turns, caller=request.ctx.caller)
        with one_more(session):
            socket = await WebSocket.accept(request, doors.limits.message_bytes)
            began = asyncio.get_running_loop().time()
            doors.metrics.answered(101)
            try:
                await session.run(socket)
            except asyncio.CancelledError:
                if not socket.lost:
                    raise
            finally:
                log.event(
                    "socket",
                    id=request.id,
                    client=request.app.ctx.client_of(request),
                    path=request.path,
                    key=request.ctx.key,
                    utterances=session.utterances,
                    seconds=asyncio.get_running_loop().time() - began,
                    code=socket.close_code,
                )

    stream.is_websocket = True  # type: ignore[attr-defined]  # Sanic then expects no response of it
    methods = ("GET", "HEAD", "POST")  # who asks otherwise than for a WebSocket is told so
    blueprint.add_route(stream, "/audio/speech/stream", methods=methods, ignore_body=True, ctx_socket=True)

    @blueprint.before_server_stop
    async def leave(*_: Any) -> None:
        for session in tuple(sessions):
            session.leave()

    return blueprint
