"""GET `/openapi.json`, and `/index.html`: Swagger UI on it, from our own copy of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanic import Blueprint, Request
from sanic.exceptions import NotFound
from sanic.response import HTTPResponse, json

from server.http.routes.methods import get_and_head
from server.http.routes.static import StaticFile

SWAGGER = Path(__file__).resolve().parent.parent / "swagger"
PAGE = "index.html"
PARTS = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js")

# Swagger UI writes style attributes, holds its icons in data URLs and plays audio from blobs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_routes(document: dict[str, Any]) -> Blueprint:
    """The routes over an OpenAPI document; public, as Swagger UI asks for a key itself."""
    blueprint = Blueprint("docs")
    page = StaticFile.read(SWAGGER / PAGE, _POLICY)
    parts = {name: StaticFile.read(SWAGGER / name, _POLICY) for name in PARTS}

    @get_and_head(blueprint, "/openapi.json", ctx_public=True)
    async def show_document(request: Request) -> HTTPResponse:
        return json(document)

    @get_and_head(blueprint, f"/{PAGE}", strict_slashes=True, ctx_public=True)  # as it names its parts relatively
    async def show_page(request: Request) -> HTTPResponse:
        return page.answer(request)

    @get_and_head(blueprint, "/swagger/<name:str>", ctx_public=True)
    async def show_part(request: Request, name: str) -> HTTPResponse:
        if name not in parts:
            raise NotFound("Swagger UI has no such file here")
        return parts[name].answer(request)

    return blueprint
