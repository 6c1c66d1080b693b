"""Everything that a request can fail with, whoever made it; what HTTP answers then is `server.http.error_answers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

LOADING_RETRY_SECONDS = 5
QUEUE_RETRY_SECONDS = 5
STOPPING_RETRY_SECONDS = 10


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


class UpgradeRequiredError(ApiError):
    """The route is a WebSocket, and the request asks for none."""

    status = 426
    kind = "invalid_request_error"
    code = "upgrade_required"
    headers: ClassVar[Mapping[str, str]] = {"upgrade": "websocket"}


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
