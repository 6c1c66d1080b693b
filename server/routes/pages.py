"""The pages a person opens: GET `/`, `/developers`, and `/web/...` with what they are made of.

All of it comes from `server/web` and is read once. The pages name each other and their files relative to themselves,
so they also work behind a proxy that adds a prefix.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sanic import Blueprint, Request
from sanic.exceptions import NotFound
from sanic.response import HTTPResponse

WEB = Path(__file__).resolve().parent.parent / "web"
PAGES = {"/": "index.html", "/developers": "developers.html"}

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Said here: the system's own table may call JavaScript plain text, on Windows, and browsers then do not run it."""
_METHODS = ("GET", "HEAD")
_HEADERS = {
    "cache-control": "no-cache",  # ask again each time: pages and modules must be of one version
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "media-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True)
class _File:
    body: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> _File:
        body = path.read_bytes()
        return cls(body, TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    def answer(self, request: Request) -> HTTPResponse:
        """The file, or 304 to a client that has it; a proxy that compresses makes the tag a weak one (`W/`)."""
        headers = {**_HEADERS, "etag": self.etag}
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if known & {self.etag, "*"}:
            return HTTPResponse(status=304, headers=headers)
        return HTTPResponse(self.body, headers=headers, content_type=self.content_type)


def page_routes() -> Blueprint:
    """The routes; public, as the pages ask for a key themselves."""
    blueprint = Blueprint("pages")
    files = {path.name: _File.read(path) for path in WEB.iterdir() if path.is_file()}
    pages = {path: files.pop(name) for path, name in PAGES.items()}

    async def page(request: Request) -> HTTPResponse:
        return pages[request.path].answer(request)

    async def without_slash(request: Request) -> HTTPResponse:
        return HTTPResponse(status=308, headers={"location": "../developers"})

    async def part(request: Request, name: str) -> HTTPResponse:
        if name not in files:
            raise NotFound("the pages have no such file")
        return files[name].answer(request)

    for path, file in PAGES.items():
        blueprint.add_route(page, path, _METHODS, name=Path(file).stem, strict_slashes=True, ctx_public=True)
    blueprint.add_route(without_slash, "/developers/", _METHODS, strict_slashes=True, ctx_public=True)
    blueprint.add_route(part, "/web/<name:str>", _METHODS, ctx_public=True)
    return blueprint
