"""From listening to the end: one Sanic app in this process, and a stop that lets requests under way finish."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sanic import Sanic

from server import log

_POLL_SECONDS = 0.05
_STOP_SIGNALS = frozenset(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))
"""SIGBREAK is what Windows sends at Ctrl+Break and when a console is closed."""
_MANY_SIGNALS = 4096


def listen(host: str, port: int) -> socket.socket:
    """Take an address and port.

    Raises:
        OSError: somebody else has it, or there is no such address.
    """
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family, backlog=128)


def serve(app: Sanic[Any, Any], sock: socket.socket, on_listening: Callable[[], None], drain_seconds: float) -> None:
    """Serve until SIGTERM or SIGINT; then requests under way get `drain_seconds` to finish, or until a second signal.

    While they do, `app.ctx.draining` is true.
    """
    # The selector's loop everywhere: Sanic takes it on Windows too, where asyncio's own choice would be another.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(_serve(app, sock, on_listening, drain_seconds))


async def _serve(
    app: Sanic[Any, Any], sock: socket.socket, on_listening: Callable[[], None], drain_seconds: float
) -> None:
    # Sanic's own `run` accepts requests before it listens to signals: a stop at the wrong moment kills it or is lost.
    stop, at_once = asyncio.Event(), asyncio.Event()
    with _on_stop_signal(lambda: (at_once if stop.is_set() else stop).set()):
        server: Any = await app.create_server(sock=sock, asyncio_server_kwargs={"start_serving": False})
        await server.startup()
        await server.before_start()
        await server.start_serving()
        await server.after_start()
        on_listening()
        await stop.wait()
        app.ctx.draining = True
        log.event("draining", seconds=float(drain_seconds))
        await server.before_stop()
        await _drain(server, sock, drain_seconds, at_once)
        await server.after_stop()


@contextmanager
def _on_stop_signal(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` on the running loop at every signal that asks this process to stop.

    It does what `loop.add_signal_handler` does and the loops of Windows do not. A signal interrupts no `select` there:
    what wakes the loop is the byte that Python's own handler writes, the signal's number.
    """
    loop = asyncio.get_running_loop()
    reader, writer = socket.socketpair()

    def read() -> None:
        for number in reader.recv(_MANY_SIGNALS):
            if number in _STOP_SIGNALS:
                act()

    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        loop.add_reader(reader, read)
        woken_before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woken_before)
            loop.remove_reader(reader)


async def _drain(server: Any, sock: socket.socket, seconds: float, at_once: asyncio.Event) -> None:
    """Accept no more connections, let the requests under way finish, and break off those that take too long."""
    closing = server.close()
    sock.close()  # on Windows Sanic serves a duplicate, and this one would go on taking connections
    waits = [asyncio.create_task(_finish(server)), asyncio.create_task(at_once.wait())]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if server.connections:
        log.event("connections_broken", level=logging.WARNING, count=len(server.connections))
    for connection in tuple(server.connections):
        connection.abort()
    await closing


async def _finish(server: Any) -> None:
    """Wait for requests under way, then for what is still to be sent.

    Idle connections stay until then: their next request is told that the server stops, which a connection closed under
    the client's hands would not say.
    """
    while any(connection.http for connection in server.connections):
        await asyncio.sleep(_POLL_SECONDS)
    for connection in tuple(server.connections):
        connection.close()
    while server.connections:
        await asyncio.sleep(_POLL_SECONDS)
