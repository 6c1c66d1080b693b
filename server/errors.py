"""The errors that a request can end with; `server.http.error_answers` turns them into answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import ValidationError

LOADING_RETRY_SECONDS = 5
FETCHING_RETRY_SECONDS = 30
QUEUE_RETRY_SECONDS = 5
STOPPING_RETRY_SECONDS = 10


class ApiError(Exception):
    """An error that a request is answered with; each subclass is one kind.

    Args:
        message: what is wrong and what to do, for the person who made the request.
        param: the field of the request that is to blame.
        headers: headers of the answer, beside those of the kind.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    headers: ClassVar[Mapping[str, str]] = {}
    example: ClassVar[tuple[str, str | None]] = ("", None)
    """A message that it may have, and the field to blame, for the OpenAPI document."""
    remedy: ClassVar[str] = ""
    """What whoever gets it can do, for the OpenAPI document."""

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
    example = ("seed must be at least 0", "seed")
    remedy = "Read the message, which names the field and what it takes. The same request fails again."


class UnauthorizedError(ApiError, PermissionError):
    """No key, or not one of ours."""

    status = 401
    kind = "invalid_request_error"
    code = "invalid_api_key"
    headers: ClassVar[Mapping[str, str]] = {"www-authenticate": "Bearer"}
    example = ("this API key is not known here", None)
    remedy = "Send the header `Authorization: Bearer KEY` with a key of this server."


class ForbiddenError(ApiError, PermissionError):
    """A page of another origin asks a server that wants no key, or asks it by a name that is not its own."""

    status = 403
    kind = "invalid_request_error"
    code = "forbidden"
    example = ("pages of https://other.example may not ask this server", None)
    remedy = (
        "Ask the server by its own name. Its operator lists other origins in `KW_CORS_ORIGINS` and "
        "other names in `KW_ALLOWED_HOSTS`."
    )


class UnknownModelError(ApiError, LookupError):
    """No bundle has this id."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"
    example = ("there is no such model; there are qwen3_tts_0_6b_customvoice, tts-1", "model")
    remedy = "Send an id of `GET /models`, or no model. The message says which command makes the model."


class UnknownVoiceError(ApiError, LookupError):
    """No voice of this name was uploaded."""

    status = 404
    kind = "invalid_request_error"
    code = "voice_not_found"
    example = ("there is no voice anna that was uploaded", "voice")
    remedy = "Send an id of `GET /audio/voices`, with the key that uploaded the voice."


class NotYourVoiceError(ApiError, PermissionError):
    """The voice is another key's, or everybody's, and only the operator may delete it."""

    status = 403
    kind = "invalid_request_error"
    code = "not_your_voice"
    example = ("the voice anna belongs to another key, or to everybody", "voice")
    remedy = "Ask with the key that uploaded the voice, or run `qwen3-tts voices remove` on the server."


class VoiceExistsError(ApiError):
    """A voice has this name already."""

    status = 409
    kind = "invalid_request_error"
    code = "voice_exists"
    example = ("there is a voice anna already; delete it first or choose another name", "name")
    remedy = "Choose another name, or delete that voice first."


class TooManyVoicesError(ApiError):
    """As many voices are kept as may be kept."""

    status = 409
    kind = "invalid_request_error"
    code = "too_many_voices"
    example = ("there are 100 voices of this key, as many as are kept here; delete one first", None)
    remedy = "Delete a voice first. The operator's limits are `KW_MAX_VOICES` and `KW_MAX_VOICES_PER_KEY`."


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
    example = ("too many requests are waiting already; try again soon", None)
    remedy = "Try again after the seconds of `Retry-After`."


class KeyLimitError(BusyError):
    """This key has as many requests under way as it may have."""

    code = "key_limit"
    example = ("this API key has 2 requests under way, its limit; try again soon", None)
    remedy = "Wait until a request with this key ends. The operator's limit is `KW_MAX_REQUESTS_PER_KEY`."


class ModelLoadingError(ApiError):
    """The model will be there soon."""

    status = 503
    code = "model_loading"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(LOADING_RETRY_SECONDS)}
    example = ("the model qwen3_tts_0_6b_customvoice is being loaded; try again soon", "model")
    remedy = "Try again after the seconds of `Retry-After`."


class ModelFetchingError(ModelLoadingError):
    """The model's bundle is being fetched from its repository.

    Args:
        message: how far that is.
        param: the field of the request that is to blame.
        progress: bytes that are there, and bytes of the whole, None where that is not known yet.
    """

    code = "model_fetching"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(FETCHING_RETRY_SECONDS)}
    example = ("the model mine is being fetched: 34 % of 1,500 MB are there", "model")

    def __init__(self, message: str, *, param: str | None = None, progress: tuple[int, int | None] = (0, None)) -> None:
        super().__init__(message, param=param)
        self.progress = progress


class ModelRestartingError(ModelLoadingError):
    """The model's engine has died or could not be loaded, and will be tried again."""

    code = "model_restarting"
    example = ("the engine of this model has stopped; another one is being started", "model")


class StoppingError(ApiError):
    """The server finishes what it has begun and begins nothing more; another one may be there soon."""

    status = 503
    code = "stopping"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(STOPPING_RETRY_SECONDS)}
    example = ("the server is stopping; try again soon", None)
    remedy = "Try again after the seconds of `Retry-After`."


class TooManyConnectionsError(ApiError):
    """As many connections as there may be have requests under way."""

    status = 503
    code = "too_many_connections"
    headers: ClassVar[Mapping[str, str]] = {"retry-after": str(QUEUE_RETRY_SECONDS)}
    example = ("there are too many connections; try again soon", None)
    remedy = "Close connections that are idle, and try again after the seconds of `Retry-After`."


class ModelUnavailableError(ApiError):
    """The model will not be there until someone acts: no bundle, or one that is damaged or too large."""

    status = 503
    code = "model_unavailable"
    headers: ClassVar[Mapping[str, str]] = {"x-should-retry": "false"}
    example = ("this model cannot be served: talker.onnx is damaged", "model")
    remedy = "Choose another model. The operator has to mend this one, and the message says what is wrong."


class SpeechFailedError(ApiError, RuntimeError):
    """The engine gave up on this request."""

    status = 500
    code = "speech_failed"
    example = ("the speech could not be made to its end; the server's log says why", None)
    remedy = "Send the request once more. If it fails again, the server's log says why."


class NoProgressError(ApiError, TimeoutError):
    """The engine made nothing for this request for too long."""

    status = 504
    code = "timeout"
    example = ("the engine has made nothing for 120 seconds; try again", None)
    remedy = "Send the request again. The operator's limit is `KW_REQUEST_TIMEOUT`."


def first_fault(error: ValidationError) -> tuple[list[str], str]:
    """The path to the first fault that pydantic found, empty for the whole, and what is wrong; never the value."""
    first = error.errors(include_input=False, include_url=False)[0]
    return [str(part) for part in first["loc"] if part != "[key]"], first["msg"].removeprefix("Value error, ")
