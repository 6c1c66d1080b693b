"""Tells browsers which pages of other origins may call the API (https://fetch.spec.whatwg.org/#http-cors-protocol).

Keys travel in the `Authorization` header and never in cookies, so that credentials in the protocol's sense are not
allowed.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from sanic import Request, Sanic
from sanic.response import BaseHTTPResponse

from server.http.schemas import HEADERS

EXPOSED_HEADERS = tuple(name for name in HEADERS if name != "www-authenticate")
"""Headers of ours that a page may read; the protocol's own list of safe headers has none of them."""

_REMEMBER_SECONDS = 3600
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TOKENS = re.compile(rf"{_TOKEN}([ \t]*,[ \t]*{_TOKEN})*")
_ASKED_BY_DEFAULT = "authorization, content-type"


def allow_origins(app: Sanic[Any, Any], origins: Collection[str]) -> None:
    """Let pages of these origins send requests and read the answers; `*` is every origin."""
    if not origins:
        return
    to_all = "*" in origins

    async def allow(request: Request, response: BaseHTTPResponse) -> None:
        headers = response.headers
        if not to_all:
            headers.add("vary", "Origin")
        origin = request.headers.getone("origin", "")
        if not to_all and origin.lower() not in origins:
            return
        headers["access-control-allow-origin"] = "*" if to_all else origin
        headers["access-control-expose-headers"] = ", ".join(EXPOSED_HEADERS)
        if request.method == "OPTIONS":
            # The asked headers are echoed: clients send headers of their own, and `*` would not include Authorization.
            wanted = request.headers.getone("access-control-request-headers", "")
            headers["access-control-allow-headers"] = wanted if _TOKENS.fullmatch(wanted) else _ASKED_BY_DEFAULT
            headers["access-control-allow-methods"] = headers.get("allow", "")
            headers["access-control-max-age"] = str(_REMEMBER_SECONDS)

    app.register_middleware(allow, "response")
