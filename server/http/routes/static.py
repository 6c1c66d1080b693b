"""Files that browsers are given, read once and kept in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

from sanic import Request
from sanic.response import HTTPResponse

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Said here: the system's own table may call JavaScript plain text, on Windows, and browsers then do not run it."""
_HEADERS = {
    "cache-control": "no-cache",  # ask again each time: pages and their parts must be of one version
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True)
class StaticFile:
    """One file with its headers."""

    body: bytes
    content_type: str
    modified: int
    """Unix seconds."""
    headers: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, policy: str) -> StaticFile:
        """Read a file; `policy` is the Content-Security-Policy to send it with."""
        body = path.read_bytes()
        modified = int(path.stat().st_mtime)
        headers = {
            **_HEADERS,
            "content-security-policy": policy,
            "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
            "last-modified": formatdate(modified, usegmt=True),
        }
        return cls(body, TYPES[path.suffix], modified, headers)

    def answer(self, request: Request) -> HTTPResponse:
        """The file, or 304 to a client that has it."""
        if self._is_known_to(request):
            return HTTPResponse(status=304, headers=dict(self.headers))
        return HTTPResponse(self.body, headers=dict(self.headers), content_type=self.content_type)

    def _is_known_to(self, request: Request) -> bool:
        """Whether the client has it, by the tag if it names one, else by the date (RFC 9110, section 13.2.2)."""
        tags = request.headers.get("if-none-match")
        if tags is not None:  # a proxy that compresses makes the tag a weak one (`W/`)
            known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
            return bool(known & {self.headers["etag"], "*"})
        try:
            return parsedate_to_datetime(request.headers.get("if-modified-since", "")).timestamp() >= self.modified
        except (ValueError, OverflowError):
            return False
