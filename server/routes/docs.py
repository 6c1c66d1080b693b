"""GET `/openapi.json`, and `/index.html`: Swagger UI on it, from our own copy of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanic import Blueprint, Request
from sanic.exceptions import NotFound
from sanic.response import HTTPResponse, file, json

from server.routes.pages import TYPES

SWAGGER = Path(__file__).resolve().parent.parent / "swagger"
PAGE = "index.html"
PARTS = ("swagger-ui.css", "swagger-ui-bundle.js", "start.js")

_HEADERS = {
    "cache-control": "no-cache",  # ask again each time: page and parts must be of one version
    # Swagger UI writes style attributes, holds its icons in data URLs and plays audio from blobs.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def docs_routes(document: dict[str, Any]) -> Blueprint:
    """The routes over an OpenAPI document; public, as Swagger UI asks for a key itself."""
    blueprint = Blueprint("docs")

    @blueprint.get("/openapi.json", ctx_public=True)
    async def show_document(request: Request) -> HTTPResponse:
        return json(document)

    @blueprint.get(f"/{PAGE}", ctx_public=True)
    async def show_page(request: Request) -> HTTPResponse:
        return await _answer(request, PAGE)

    @blueprint.get("/swagger/<name:str>", ctx_public=True)
    async def show_part(request: Request, name: str) -> HTTPResponse:
        if name not in PARTS:
            raise NotFound("Swagger UI has no such file here")
        return await _answer(request, name)

    return blueprint


async def _answer(request: Request, name: str) -> HTTPResponse:
    path = SWAGGER / name
    return await file(path, mime_type=TYPES[path.suffix], request_headers=request.headers, headers={**_HEADERS})
