"""Answers every error in one JSON shape, `{"error": {"message", "type", "param", "code"}, "message"}`.

OpenAI's SDKs read `error`, and Kokoro Web's clients read the outer `message`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Mapping
from typing import Any

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
TOO_LARGE = "the body has more than {} bytes, the most that are read of it"
"""What a body is told that is too long; the braces stand for the limit."""
REASON_CHARS = 300
"""The most characters of an error's message that the log shows, because it may repeat what a stranger has sent."""

CLIENT_LEFT = 499
"""The status, as nginx logs it, of a request whose client closed its connection before the answer."""


def body_of(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Make the body of any error, in the shape of `ErrorAnswer`."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}, "message": message}


def body_of_error(error: ApiError) -> dict[str, Any]:
    """Make the body of one of our errors."""
    return body_of(error.message, kind=error.kind, param=error.param, code=error.code)


def _response(status: int, body: dict[str, Any], headers: Mapping[str, str]) -> HTTPResponse:
    return HTTPResponse(json.dumps(body), status=status, headers=dict(headers), content_type="application/json")


def _places(error: BaseException) -> str:
    """Name the places in the code that an unforeseen error passed, the innermost last, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    return " > ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}:{frame.name}" for frame in frames)


class JsonErrors(ErrorHandler):
    """Answers every exception, Sanic's own too, in this shape; the log tells of those that the client did not cause."""

    def default(self, request: Request, exception: Exception) -> HTTPResponse:
        """Answer with the error's status; an unforeseen exception becomes a 500 that tells nothing of it."""
        if isinstance(exception, ApiError):
            # Errors that the server causes have lines of their own in the log.
            _note(request, exception.code, exception.param, exception.message if exception.status < 500 else None)
            headers = {**exception.headers, **exception.extra_headers}
            return _response(exception.status, body_of_error(exception), headers)
        if isinstance(exception, MethodNotAllowed) and request.method == "OPTIONS":  # no route handles OPTIONS itself
            return HTTPResponse(status=204, headers={"allow": f"{exception.headers['Allow']}, OPTIONS"})
        if isinstance(exception, SanicException) and exception.status_code < 500:
            code = SANIC_CODES.get(exception.status_code, "bad_request")
            message = _words(request, exception)
            _note(request, code, None, message)
            body = body_of(message, kind="invalid_request_error", code=code)
            return _response(exception.status_code, body, _plain_headers(exception))
        if isinstance(exception, RequestCancelled):  # nobody reads this answer; the status is for the log
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
    """Note why a request is refused, for its line in the log."""
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
"""Codes of the errors that Sanic raises; all others are malformed requests and have the code `bad_request`."""


def _plain_headers(exception: SanicException) -> dict[str, str]:
    """Return the exception's headers, such as Allow, without those that Sanic sets for a body of its own."""
    skipped = ("content-type", "content-length")
    return {key: str(value) for key, value in exception.headers.items() if key.lower() not in skipped}
