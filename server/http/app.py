"""Builds the HTTP server: settings, engines, speech service and routes become one Sanic app."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from sanic import Blueprint, Request, Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.exceptions import BadURL, PayloadTooLarge, RequestTimeout, SanicException
from sanic.http import Http
from sanic.http.constants import HTTP
from sanic.response import BaseHTTPResponse

from server import log
from server.audio.encoders import MARK
from server.config import Settings
from server.config.addresses import ClientAddresses, is_loopback
from server.errors import ApiError, StoppingError, UnauthorizedError
from server.http import openapi
from server.http.access import BrowserGuard, KeyLimit, KeyRing, key_of_subprotocols
from server.http.capacity import OpenConnections, Turns, Uploads, connections_possible
from server.http.cors import allow_origins
from server.http.doors import Doors, StreamLimits
from server.http.error_answers import TOO_LARGE, JsonErrors
from server.http.listing import Listing
from server.http.receiving import GuardedHttp
from server.http.routes.captioned_speech import captioned_speech_routes
from server.http.routes.catalogue import catalogue_routes
from server.http.routes.encoding import encoding_routes
from server.http.routes.health import health_routes
from server.http.routes.pages import docs_routes, page_routes
from server.http.routes.speech import speech_routes
from server.http.routes.speech_batch import speech_batch_routes
from server.http.routes.speech_stream import speech_stream_routes
from server.http.routes.voices import voice_routes
from server.metrics import Metrics
from server.models.pool import EnginePool
from server.speech.cloning import References
from server.speech.fetching import Sources
from server.speech.keeping import Keeper
from server.speech.rendering import WholeFiles
from server.speech.service import SpeechService
from server.text.lexicon import NO_LEXICON, Lexicon
from server.voices.folder import VoiceFolder
from server.voices.profiles import Profile

API_PREFIXES = ("/v1", "/api/v1")
"""The first is what OpenAI's clients expect, the second what Kokoro Web's clients expect."""

_BODY_BYTES = 1 << 20
_BYTES_PER_CHAR = 12
"""The longest JSON escape of one character, a surrogate pair; text and instructions may consist of such escapes."""

QUIET_PATHS = ("livez", "readyz", "health", "metrics")
"""Routes that monitors ask all day long; their log lines have the level DEBUG."""

REFUSALS_LOGGED = 20
"""Lines a second in the log for requests without a known key that were refused: a stranger can send hundreds."""

REQUESTS_A_ROUND = 1
"""Requests that begin or end in one round of the event loop: each takes it half a millisecond."""

_RESPONSE_SECONDS = 24 * 3600

_NO_URL = b"/no-url"
"""Replaces a URL that cannot be parsed; it has no route, so that the answer is a 404."""

_SLASHES = re.compile(rb"/{2,}")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class SpeechHttpRequest(Request):
    """A request with an id, and with single slashes in its path: clients whose base URL ends with a slash send two."""

    def __init__(self, url_bytes: bytes, *arguments: Any, **named: Any) -> None:
        if url_bytes.startswith(b"/"):
            path, mark, query = url_bytes.partition(b"?")
            url_bytes = _SLASHES.sub(b"/", path) + mark + query
        try:
            super().__init__(url_bytes, *arguments, **named)
        except BadURL:  # to answer it, Sanic would make a request of the same URL again, and would fail again
            super().__init__(_NO_URL, *arguments, **named)

    @property
    def id(self) -> str:
        """The id for the answer's header and the log: the caller's `X-Request-Id` if it is harmless, else a new one."""
        if self._id is None:
            given = self.headers.get("x-request-id", "")
            self._id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        return str(self._id)

    async def receive_body(self) -> None:
        """Check the request's key, then receive its body before the deadline of the whole request.

        Raises:
            ApiError: the request is not let in; nothing of its body has been read.
            SanicException: the body is too large, malformed or late.
        """
        stream = cast(GuardedHttp, self.stream)
        takes = getattr(getattr(self.route, "ctx", None), "takes_recordings", False)
        try:
            self.ctx.refused = True
            self.app.ctx.admit(self)
            self.ctx.refused = False
            uploads: Uploads = self.app.ctx.uploads
            usual = self.app.config.REQUEST_MAX_SIZE
            stream.request_max_size = uploads.longest if takes and stream.length is not None else usual
            stream.check_length()
            stream.protocol.held.enter_context(uploads.one(stream.length or 0, usual))
            async with asyncio.timeout_at(stream.deadline):
                await super().receive_body()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            stream.give_up_body()
            raise RequestTimeout("the request did not come to its end in time") from error
        except PayloadTooLarge as error:
            shorter = "; a longer recording needs a Content-Length" if takes and stream.length is None else ""
            stream.give_up_body()
            raise PayloadTooLarge(TOO_LARGE.format(stream.request_max_size) + shorter) from error
        except (ApiError, SanicException):
            stream.give_up_body()
            raise


def create_app(
    settings: Settings,
    pool: EnginePool,
    profiles: Mapping[str, Profile],
    metrics: Metrics,
    lexicon: Lexicon = NO_LEXICON,
) -> Sanic[Any, Any]:
    """Build the app; once it runs, it loads the default model in the background.

    Args:
        settings: what the operator chose.
        pool: the engines of the models; it is closed when the server stops.
        profiles: the voice profiles, by id.
        metrics: counts every request, and is served.
        lexicon: the operator's pronunciation dictionary.

    Raises:
        KeyFileError: the content of the key file cannot be used.
        OSError: the key file cannot be read.
    """
    app = Sanic(
        "qwen3-tts-edge",
        request_class=SpeechHttpRequest,
        error_handler=JsonErrors(),
        configure_logging=False,
    )
    app.ctx.leaving = app.ctx.draining = False
    app.ctx.uploads = Uploads(settings.max_reference)
    app.ctx.turns = Turns(REQUESTS_A_ROUND)
    app.ctx.connections = OpenConnections(connections_possible(settings.max_connections))
    _configure(app, settings)
    mark = MARK if settings.mark_synthetic == "on" else ""
    app.ctx.service = service = SpeechService(
        pool,
        profiles,
        settings.max_input_chars,
        lexicon,
        settings.text_wait_seconds,
        VoiceFolder(settings.voices_dir, settings.max_voices, settings.max_voices_per_key),
        References(
            Sources(settings.max_reference, settings.reference_hosts, settings.reference_dir),
            settings.max_reference_seconds,
        ),
        mark,
    )
    keys, files = KeyLimit(settings.max_requests_per_key), WholeFiles(settings.max_file)
    limits = StreamLimits(
        sockets=settings.max_sockets,
        idle_seconds=settings.socket_idle_seconds,
        timeout=settings.request_timeout,
        text_chars=settings.max_input_chars,
        message_bytes=app.config.REQUEST_MAX_SIZE,
    )
    listing = Listing(pool.bundles, profiles, service.voices)
    doors = Doors(service, metrics, keys, files, limits, streams=settings.stream == "on")
    api = Blueprint.group(
        speech_routes(doors),
        speech_stream_routes(doors),
        speech_batch_routes(doors),
        encoding_routes(doors, mark),
        catalogue_routes(pool, listing),
        voice_routes(Keeper(service, settings.voice_consent, settings.request_timeout), service.voices, keys),
        docs_routes(
            openapi.document(max_input_chars=settings.max_input_chars, needs_key=settings.requires_key), listing
        ),
    )
    for number, prefix in enumerate(API_PREFIXES):
        app.blueprint(api, url_prefix=prefix, name_prefix=f"api{number}")
    app.blueprint(captioned_speech_routes(doors))
    app.blueprint(health_routes(pool, metrics))
    app.blueprint(page_routes())
    _guard(app, settings)
    allow_origins(app, settings.cors_origins)
    _identify(app, metrics, ClientAddresses(settings.trusted_proxies))

    @app.before_server_start
    async def load(app: Sanic[Any, Any]) -> None:
        pool.load_default()

    @app.after_server_stop
    async def close(app: Sanic[Any, Any]) -> None:
        await pool.close()

    return app


def _configure(app: Sanic[Any, Any], settings: Settings) -> None:
    app.config.AUTO_EXTEND = False
    app.config.MOTD = False
    app.config.ACCESS_LOG = False
    app.config.REQUEST_MAX_SIZE = max(_BODY_BYTES, 2 * _BYTES_PER_CHAR * settings.max_input_chars)
    # Sanic stops reading from a connection whose buffer is full, and then cannot notice that the client has left.
    app.config.REQUEST_BUFFER_SIZE = 2 * app.config.REQUEST_MAX_SIZE
    app.config.REQUEST_TIMEOUT = settings.request_timeout or _RESPONSE_SECONDS
    # Sanic then sends no empty `alt-svc` header.
    app.state.server_info.append(ApplicationServerInfo({"version": HTTP.VERSION_1}))
    # Long texts take minutes on a small machine: what is limited is the time without progress, in the speech route.
    app.config.RESPONSE_TIMEOUT = _RESPONSE_SECONDS


def _guard(app: Sanic[Any, Any], settings: Settings) -> None:
    """Check who asks before the body is read; `request.ctx.key` becomes the label of the request's key, or None.

    `request.ctx.caller` is a digest of it, or None. Every route wants a key except those that are marked public. A
    server without keys refuses pages of other origins.
    """
    keys = KeyRing(settings.secret_api_key, settings.api_keys_file) if settings.requires_key else None
    in_query = settings.api_key_in_query == "on"
    browsers = None
    if keys is None and (settings.auth == "on" or is_loopback(settings.address) or settings.allowed_hosts):
        browsers = BrowserGuard({settings.address, *settings.allowed_hosts}, settings.cors_origins)

    def admit(request: Request) -> None:
        if getattr(request.ctx, "admitted", False):
            return
        request.ctx.key = request.ctx.caller = None
        if browsers is not None:
            browsers.check(request)
        if keys is not None and request.route is not None and not getattr(request.route.ctx, "public", False):
            api_key = request.headers.get("api-key")
            if getattr(request.route.ctx, "socket", False):
                api_key = api_key or key_of_subprotocols(request.headers.getall("sec-websocket-protocol", ()))
                api_key = api_key or (request.args.get("api_key") if in_query else None)
            request.ctx.key = keys.check(request.headers.get("authorization"), api_key)
            request.ctx.caller = keys.owner(request.ctx.key)
        elif keys is not None and getattr(getattr(request.route, "ctx", None), "shows_own", False):
            with suppress(UnauthorizedError):  # whoever has a key sees more
                request.ctx.caller = keys.owner(
                    keys.check(request.headers.get("authorization"), request.headers.get("api-key"))
                )
        if app.ctx.draining and request.method == "POST":
            raise StoppingError("the server is stopping; try again soon")
        request.ctx.admitted = True

    async def check(request: Request) -> None:
        if getattr(request.ctx, "refused", False):  # Sanic also runs this for an error that it is about to answer
            return
        try:
            admit(request)
        except ApiError:
            if getattr(getattr(request.route, "ctx", None), "reads_body", False):  # nothing of it has been read
                cast(GuardedHttp, request.stream).give_up_body()
            raise

    app.ctx.admit = admit
    app.register_middleware(check, "request")


def _identify(app: Sanic[Any, Any], metrics: Metrics, clients: ClientAddresses) -> None:
    """Give every answer its id, and every request a line in the log and a count; while draining, close connections."""

    def client_of(request: Request) -> str | None:
        return clients.of(request.ip, request.headers.getall("x-forwarded-for", ()))

    app.ctx.client_of = client_of
    refusals = log.Few("refusals_not_logged", REFUSALS_LOGGED)

    async def identify(request: Request, response: BaseHTTPResponse) -> None:
        response.headers["x-request-id"] = request.id
        if app.ctx.draining and isinstance(request.stream, Http):
            request.stream.keep_alive = False
        metrics.answered(response.status)
        quiet = request.route is not None and request.route.path in QUIET_PATHS
        level = logging.DEBUG if quiet else logging.INFO
        key = getattr(request.ctx, "key", None)
        if not log.shows(level) or (key is None and 400 <= response.status < 500 and not refusals.one_more()):
            return
        code, param, reason = getattr(request.ctx, "refusal", (None, None, None))
        log.event(
            "request",
            level=level,
            id=request.id,
            client=client_of(request),
            method=request.method,
            path=request.path,
            status=response.status,
            code=code,
            param=param,
            reason=reason,
            key=key,
        )

    app.register_middleware(identify, "response")
