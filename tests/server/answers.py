"""A request that works, and what every error answer looks like."""

from __future__ import annotations

import re
from tempfile import gettempdir
from typing import Any

import httpx

GOOD = {"model": "tts-1", "input": "Hello", "voice": "alloy", "exact_frames": 5, "response_format": "pcm"}
PREFIXES = ("/v1", "/api/v1")
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "whole": {"stream": False},
    "audio": {"stream_format": "audio"},
    "stream": {"stream": True},
}
"""Fields of a request for each way in which its answer is sent."""


def check_error(response: httpx.Response, status: int, code: str, param: str | None = None) -> str:
    """Check the shape of an error; return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    assert set(body) == {"error", "message"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["message"] == body["error"]["message"]
    assert (body["error"]["code"], body["error"]["param"]) == (code, param)
    assert not re.search(rf"Traceback|\.py|/home|/secret|/usr|{re.escape(gettempdir())}", response.text)
    return str(body["message"])
