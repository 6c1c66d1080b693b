"""The pages a person opens: GET `/`, `/developers`, and `/web/...` with what they are made of.

All of it comes from `server/http/web` and is read once. The pages name each other and their files relative to
themselves,
so they also work behind a proxy that adds a prefix.
"""

from __future__ import annotations

from pathlib import Path

from sanic import Blueprint, Request
from sanic.exceptions import NotFound
from sanic.response import HTTPResponse

from server.http.routes.methods import get_and_head
from server.http.routes.static import StaticFile

WEB = Path(__file__).resolve().parent.parent / "web"
PAGES = {"/": "index.html", "/developers": "developers.html"}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "media-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes() -> Blueprint:
    """The routes; public, as the pages ask for a key themselves."""
    blueprint = Blueprint("pages")
    files = {path.name: StaticFile.read(path, _POLICY) for path in WEB.iterdir() if path.is_file()}
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
        get_and_head(blueprint, path, name=Path(file).stem, strict_slashes=True, ctx_public=True)(page)
    get_and_head(blueprint, "/developers/", strict_slashes=True, ctx_public=True)(without_slash)
    get_and_head(blueprint, "/web/<name:str>", ctx_public=True)(part)
    return blueprint
