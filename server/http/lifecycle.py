"""Runs one Sanic app in this process, and stops it so that requests under way can finish."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from sanic import Sanic

from server import log
from server.http.capacity import limit_accept_errors
from server.http.connections import GuardedProtocol
from server.http.listening import BACKLOG
from server.http.rounds import new_event_loop
from server.http.stop_signals import on_stop_signal

ACCEPTED_AT_A_TIME = 2
"""Connections that one round of the event loop accepts: each takes it 0.1 ms or more, and other events wait."""

_POLL_SECONDS = 0.05


def serve(
    app: Sanic[Any, Any],
    sockets: Sequence[socket.socket],
    on_listening: Callable[[], None],
    drain_seconds: float,
    delay_seconds: float = 0,
) -> None:
    """Serve until SIGTERM or SIGINT.

    After the signal the server goes on as before for `delay_seconds`, with `app.ctx.leaving` set. Then requests under
    way have `drain_seconds` to finish, with `app.ctx.draining` set. A second signal ends both times: it sets the event
    `app.ctx.at_once`.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve_until_signal(app, sockets, on_listening, drain_seconds, delay_seconds))


class ServerThread:
    """Serves in a thread of its own, in a process whose main thread and signals belong to somebody else.

    Args:
        app: what is served.
        sockets: that it is served on.
        drain_seconds: that requests under way have to finish.
    """

    def __init__(self, app: Sanic[Any, Any], sockets: Sequence[socket.socket], drain_seconds: float) -> None:
        self._app, self._sockets, self._drain_seconds = app, sockets, drain_seconds
        self._listens: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Begin to serve; it waits until the sockets are listened to, and raises what keeps them from that."""
        self._thread.start()
        self._listens.result()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Let requests under way finish, and wait until they have or their time is over."""
        loop, stop = self._listens.result()
        with suppress(RuntimeError):  # the loop is closed: it has stopped already
            loop.call_soon_threadsafe(stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if self._listens.done():
                raise
            self._listens.set_exception(error)

    async def _serve(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        await _serve(
            self._app, self._sockets, lambda: self._listens.set_result((loop, stop)), stop, self._drain_seconds
        )


async def _serve_until_signal(
    app: Sanic[Any, Any],
    sockets: Sequence[socket.socket],
    on_listening: Callable[[], None],
    drain_seconds: float,
    delay_seconds: float,
) -> None:
    # Sanic's own `run` accepts requests before it handles signals: a stop between the two would kill it or be lost.
    stop, at_once = asyncio.Event(), asyncio.Event()
    with on_stop_signal(lambda: (at_once if stop.is_set() else stop).set()):
        await _serve(app, sockets, on_listening, stop, drain_seconds, delay_seconds, at_once)


async def _serve(
    app: Sanic[Any, Any],
    sockets: Sequence[socket.socket],
    on_listening: Callable[[], None],
    stop: asyncio.Event,
    drain_seconds: float,
    delay_seconds: float = 0,
    at_once: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set, then drain; `at_once` ends that early."""
    limit_accept_errors(asyncio.get_running_loop())
    app.ctx.at_once = at_once = at_once or asyncio.Event()
    not_yet = {"start_serving": False}
    servers: list[Any] = [
        await app.create_server(
            sock=sock, protocol=GuardedProtocol, backlog=ACCEPTED_AT_A_TIME, asyncio_server_kwargs=not_yet
        )
        for sock in sockets
    ]
    server = servers[0]  # fires the app's events, which are the same for all servers
    await server.startup()
    await server.before_start()
    for each in servers:
        await each.start_serving()
    for sock in sockets:
        sock.listen(BACKLOG)  # asyncio takes as many for the system to keep as it is to accept at a time
    await server.after_start()
    on_listening()
    await stop.wait()
    if delay_seconds:
        app.ctx.leaving = True
        log.event("leaving", seconds=float(delay_seconds))
        with suppress(TimeoutError):
            await asyncio.wait_for(at_once.wait(), delay_seconds)
    app.ctx.draining = True
    log.event("draining", seconds=float(drain_seconds))
    await server.before_stop()
    await _drain(servers, sockets, drain_seconds, at_once)
    await server.after_stop()


async def _drain(
    servers: Sequence[Any], sockets: Sequence[socket.socket], seconds: float, at_once: asyncio.Event
) -> None:
    """Accept no more connections, let requests under way finish, and break off those that take too long."""
    closing = [server.close() for server in servers]
    for sock in sockets:
        sock.close()  # on Windows Sanic serves a duplicate, so that this one would go on accepting connections
    waits = [asyncio.create_task(_finish(servers)), asyncio.create_task(at_once.wait())]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if left := _connections(servers):
        log.event("connections_broken", level=logging.WARNING, count=len(left))
    for connection in left:
        connection.abort()
    await asyncio.gather(*closing)


def _connections(servers: Sequence[Any]) -> list[Any]:
    return [connection for server in servers for connection in server.connections]


async def _finish(servers: Sequence[Any]) -> None:
    """Wait until no request is under way, then until all answers are sent.

    Idle connections stay open until then: a request that still arrives is told that the server stops, which a closed
    connection would not tell.
    """
    while any(connection.http for connection in _connections(servers)):
        await asyncio.sleep(_POLL_SECONDS)
    for connection in _connections(servers):
        connection.close()
    while _connections(servers):
        await asyncio.sleep(_POLL_SECONDS)
