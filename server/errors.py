"""Everything a request can be answered with besides success, and the one JSON shape of it.

`{"error": {"message", "type", "param", "code"}, "message"}`: OpenAI's SDKs read the first, Kokoro Web's clients the
second.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, Field
from sanic import Request
from sanic.exceptions import MethodNotAllowed, NotFound, RequestCancelled, SanicException
from sanic.handlers import ErrorHandler
from sanic.response import HTTPResponse

from server import log

NO_ROUTE = (
    "there is no such route; speech is POST /v1/audio/speech, the base URL of OpenAI's clients ends with /v1, "
    "and /v1/index.html shows all routes"
)
REASON_CHARS = 300
"""Of an error's message in the log: it may repeat what a stranger has sent."""

LOADING_RETRY_SECONDS = 5
QUEUE_RETRY_SECONDS = 5
STOPPING_RETRY_SECONDS = 10
CLIENT_LEFT = 499
"""What nginx logs for a client that closed its connection before the answer."""


class ApiError(Exception):
    """An answer that is not speech; each subclass is one kind of it.

    Args:
        message: what is wrong and what to do, for the person who made the request.
        param: the field of the request that is to blame.
        headers: response headers beside the kind's own.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.extra_headers = dict(headers or {})


class InvalidRequestError(ApiError, ValueError):
    """Something in the request is wrong."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_value"


class UnauthorizedError(ApiError, PermissionError):
    """No key, or not one of ours."""

    status = 401
    kind = "invalid_request_error"
    code = "invalid_api_key"
    headers: ClassVar[Mapping[str, str]] = {"www-authenticate": "Bearer"}


class ForbiddenError(ApiError, PermissionError):
    """A page of another origin asks a server that wants no key, or asks it by a name that is not its own."""

    status = 403
    kind = "invalid_request_error"
    code = "forbidden"


class UnknownModelError(ApiError, LookupError):
    """No bundle has this id."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class BusyError(ApiError):
    """As many requests wait as may wait."""

    status = 429
    kind = "rate_limit_error"
    code = "queue_full"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(QUEUE_RETRY_SECONDS)}


class KeyLimitError(BusyError):
    """This key has as many requests under way as it may have."""

    code = "key_limit"


class ModelLoadingError(ApiError):
    """The model will be there soon."""

    status = 503
    code = "model_loading"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(LOADING_RETRY_SECONDS)}


class ModelRestartingError(ModelLoadingError):
    """The model's engine has died or could not be loaded, and will be tried again."""

    code = "model_restarting"


class StoppingError(ApiError):
    """The server finishes what it has begun and begins nothing more; another one may be there soon."""

    status = 503
    code = "stopping"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(STOPPING_RETRY_SECONDS)}


class TooManyConnectionsError(ApiError):
    """As many connections as there may be have requests under way."""

    status = 503
    code = "too_many_connections"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(QUEUE_RETRY_SECONDS)}


class ModelUnavailableError(ApiError):
    """The model will not be there until someone acts: no bundle, or one that is damaged or too large."""

    status = 503
    code = "model_unavailable"
    headers: ClassVar[Mapping[str, str]] = {"x-should-retry": "false"}


class SpeechFailedError(ApiError, RuntimeError):
    """The engine gave up on this request."""

    status = 500
    code = "speech_failed"


class NoProgressError(ApiError, TimeoutError):
    """The engine made nothing for this request for too long."""

    status = 504
    code = "timeout"


class ErrorDetail(BaseModel):
    """What OpenAI's SDKs read of an error."""

    message: str = Field(description="What is wrong and what to do.")
    type: str = Field(description="The kind of error.")
    param: str | None = Field(description="The field of the request that is to blame.")
    code: str | None = Field(description="Which error it is, for programs.")


class ErrorAnswer(BaseModel):
    """The body of every error."""

    error: ErrorDetail
    message: str = Field(description="The same message, where Kokoro Web's clients look for it.")


def body_of(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The JSON shape of every error."""
    detail = ErrorDetail(message=message, type=kind, param=param, code=code)
    return ErrorAnswer(error=detail, message=message).model_dump()


def _response(status: int, body: dict[str, Any], headers: Mapping[str, str]) -> HTTPResponse:
    return HTTPResponse(json.dumps(body), status=status, headers=dict(headers), content_type="application/json")


def _places(error: BaseException) -> str:
    """Where an unforeseen error came from, innermost last, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    return " > ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}:{frame.name}" for frame in frames)


class JsonErrors(ErrorHandler):
    """Answers every exception, Sanic's own too, in our shape; what is not the client's doing goes to the log."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Answer with the error's status; unforeseen ones become a 500 that tells nothing."""
        if isinstance(exception, ApiError):
            # What is the server's own doing has lines of its own in the log.
            _note(request, exception.code, exception.param, exception.message if exception.status < 500 else None)
            body = body_of(exception.message, kind=exception.kind, param=exception.param, code=exception.code)
            return _response(exception.status, body, {**exception.headers, **exception.extra_headers})
        if isinstance(exception, MethodNotAllowed) and request.method == "OPTIONS":  # no route has a handler for it
            return HTTPResponse(status=204, headers={"allow": f"{exception.headers['Allow']}, OPTIONS"})
        if isinstance(exception, SanicException) and exception.status_code < 500:
            code = SANIC_CODES.get(exception.status_code, "bad_request")
            message = _words(request, exception)
            _note(request, code, None, message)
            body = body_of(message, kind="invalid_request_error", code=code)
            return _response(exception.status_code, body, _plain_headers(exception))
        if isinstance(exception, RequestCancelled):  # nobody is left to read it; the status is for the log
            return _response(CLIENT_LEFT, body_of("the client has left", kind="client_left"), {})
        if isinstance(exception, asyncio.CancelledError):
            return self.default(request, StoppingError("the server is stopping"))
        log.event(
            "unforeseen_error",
            level=logging.ERROR,
            id=request.id,
            error=type(exception).__name__,
            at=_places(exception),
        )
        body = body_of("the server made a mistake; its log says more", kind="server_error", code="internal_error")
        return _response(500, body, {})


def _note(request: Request, code: str | None, param: str | None, message: str | None) -> None:
    """Keep why a request is refused, for its line in the log."""
    request.ctx.refusal = (code, param, message and message[:REASON_CHARS])


def _words(request: Request, exception: SanicException) -> str:
    if isinstance(exception, MethodNotAllowed):
        return f"this route is not for {request.method}; it takes {exception.headers['Allow']}"
    return NO_ROUTE if isinstance(exception, NotFound) and request.route is None else str(exception)


SANIC_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    417: "expectation_failed",
}
"""Codes of the errors that Sanic finds; 400 for the rest, which are all malformed requests."""


def _plain_headers(exception: SanicException) -> dict[str, str]:
    """The exception's headers (Allow, ...) less those that Sanic sets for its own body."""
    skipped = ("content-type", "content-length")
    return {key: str(value) for key, value in exception.headers.items() if key.lower() not in skipped}
