"""How HTTP answers an error, in one JSON shape.

`{"error": {"message", "type", "param", "code"}, "message"}`: OpenAI's SDKs read the first, Kokoro Web's clients the
second.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from sanic import Request
from sanic.exceptions import MethodNotAllowed, NotFound, RequestCancelled, SanicException
from sanic.handlers import ErrorHandler
from sanic.response import HTTPResponse

from server import log
from server.errors import ApiError, StoppingError

NO_ROUTE = (
    "there is no such route; speech is POST /v1/audio/speech, the base URL of OpenAI's clients ends with /v1, "
    "and /v1/index.html shows all routes"
)
REASON_CHARS = 300
"""The log has so many characters of an error's message at most: it may repeat what a stranger has sent."""

CLIENT_LEFT = 499
"""nginx logs this status for a client that closed its connection before the answer."""


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
