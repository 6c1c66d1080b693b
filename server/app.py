"""The HTTP server: puts settings, bundles, service and routes together into one Sanic app for one process."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sanic import Blueprint, Request, Sanic
from sanic.http import Http
from sanic.response import BaseHTTPResponse

from server import log
from server.auth import KeyRing
from server.bundles import Bundles
from server.config import Settings
from server.errors import JsonErrors
from server.routes.health import health_routes
from server.routes.models import model_routes
from server.routes.pages import page_routes
from server.routes.speech import speech_routes
from server.routes.voices import voice_routes
from server.service import SpeechService

API_PREFIXES = ("/v1", "/api/v1")
"""OpenAI's habit and Kokoro Web's."""

_BODY_BYTES = 1 << 20
_BYTES_PER_CHAR = 12
"""The longest JSON escape of one character, a surrogate pair; the text and the instructions may both be that long."""

_RESPONSE_SECONDS = 24 * 3600
SHUTDOWN_SECONDS = 8
"""For requests under way when the server is to stop: less than the 10 s after which container runtimes kill."""

_DRAIN_POLL_SECONDS = 0.05

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class SpeechHttpRequest(Request):
    """A request whose id is the caller's `X-Request-Id` where that is harmless to repeat, else a new one."""

    @property
    def id(self) -> str:
        """Id for the answer's header and the log."""
        if self._id is None:
            given = self.headers.get("x-request-id", "")
            self._id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        return str(self._id)


def create_app(settings: Settings, bundles: Bundles) -> Sanic[Any, Any]:
    """Build the app; it loads the default model in the background once it runs.

    Args:
        settings: what the operator chose.
        bundles: the models to serve; closed when the server stops.
    """
    app = Sanic(
        "qwen3-tts-edge",
        request_class=SpeechHttpRequest,
        error_handler=JsonErrors(),
        configure_logging=False,
    )
    _configure(app, settings)
    service = SpeechService(bundles, settings.max_input_chars)
    api = Blueprint.group(speech_routes(service), model_routes(bundles), voice_routes(bundles))
    for number, prefix in enumerate(API_PREFIXES):
        app.blueprint(api, url_prefix=prefix, name_prefix=f"api{number}")
    app.blueprint(health_routes(bundles))
    app.blueprint(page_routes())
    _guard(app, settings)
    _identify(app)

    under_way: weakref.WeakSet[Request] = weakref.WeakSet()

    async def remember(request: Request) -> None:
        under_way.add(request)

    app.register_middleware(remember, "request")

    @app.before_server_start
    async def load(app: Sanic[Any, Any]) -> None:
        bundles.load_default()

    @app.before_server_stop
    async def close_connections(app: Sanic[Any, Any]) -> None:
        """Sanic closes connections that are idle now; those with a request under way are not to be kept after it."""
        for request in under_way:
            if isinstance(request.stream, Http):
                request.stream.keep_alive = False

    @app.after_server_stop
    async def close(app: Sanic[Any, Any]) -> None:
        await bundles.close()

    return app


def _configure(app: Sanic[Any, Any], settings: Settings) -> None:
    app.config.AUTO_EXTEND = False
    app.config.MOTD = False
    app.config.ACCESS_LOG = False
    app.config.REQUEST_MAX_SIZE = max(_BODY_BYTES, 2 * _BYTES_PER_CHAR * settings.max_input_chars)
    # Sanic stops reading from a connection whose buffer is full, and then cannot notice that the client has left.
    app.config.REQUEST_BUFFER_SIZE = 2 * app.config.REQUEST_MAX_SIZE
    # Long texts take minutes on a small machine; a stream has its stall limit, a buffered answer its frame limit.
    app.config.RESPONSE_TIMEOUT = _RESPONSE_SECONDS


def _guard(app: Sanic[Any, Any], settings: Settings) -> None:
    """Ask every route for a key except those marked public."""
    if not settings.requires_key:
        return
    keys = KeyRing(settings.secret_api_key)

    async def check_key(request: Request) -> None:
        if request.route is not None and not getattr(request.route.ctx, "public", False):
            keys.check(request.headers.get("authorization"))

    app.register_middleware(check_key, "request")


def _identify(app: Sanic[Any, Any]) -> None:
    """Give every answer its id and every request its log line."""

    async def identify(request: Request, response: BaseHTTPResponse) -> None:
        response.headers["x-request-id"] = request.id
        quiet = request.route is not None and request.route.path in ("livez", "readyz")
        log.event(
            "request",
            level=logging.DEBUG if quiet else logging.INFO,
            id=request.id,
            method=request.method,
            path=request.path,
            status=response.status,
        )

    app.register_middleware(identify, "response")


def listen(settings: Settings) -> socket.socket:
    """Take the address and port.

    Raises:
        OSError: somebody else has it, or there is no such address.
    """
    host = settings.address
    family = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, settings.port), family=family, backlog=128)


def serve(app: Sanic[Any, Any], sock: socket.socket, on_listening: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; requests under way get a few seconds to finish."""
    asyncio.run(_serve(app, sock, on_listening))


async def _serve(app: Sanic[Any, Any], sock: socket.socket, on_listening: Callable[[], None]) -> None:
    # Sanic's own `run` accepts requests before it listens to signals: a stop at the wrong moment kills it or is lost.
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server: Any = await app.create_server(sock=sock, asyncio_server_kwargs={"start_serving": False})
    await server.startup()
    await server.before_start()
    await server.start_serving()
    await server.after_start()
    on_listening()
    await stop.wait()
    await server.before_stop()
    await _drain(server)
    await server.after_stop()


async def _drain(server: Any) -> None:
    """Accept no more, let the requests under way finish, and break off those that take too long."""
    closing = server.close()
    for connection in tuple(server.connections):
        connection.close_if_idle()
    with suppress(TimeoutError):
        async with asyncio.timeout(SHUTDOWN_SECONDS):
            while server.connections:
                await asyncio.sleep(_DRAIN_POLL_SECONDS)
    for connection in tuple(server.connections):
        connection.abort()
    await closing
