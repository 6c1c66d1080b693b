"""Pages for people: GET `/`, `/voices`, `/developers` and their parts in `/web/`; under the API Swagger UI and
`/openapi.json`.

All files come from `server/http/web` and `server/http/swagger`. The pages name each other and their parts relatively,
so that they also work behind a proxy that adds a prefix. A page names its parts with the version of all of them in the
path, so that browsers keep them: opened again, it asks for none of 40 files. Every route is public, because the
pages ask for a key themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sanic import Blueprint, Request
from sanic.exceptions import NotFound
from sanic.response import HTTPResponse

from server.http import openapi_schemas
from server.http.listing import Listing
from server.http.routes.methods import get_and_head
from server.http.static_file import TYPES, StaticFile

WEB = Path(__file__).resolve().parent.parent / "web"
PAGES = {"/": "index.html", "/voices": "voices.html", "/developers": "developers.html"}
SWAGGER = WEB.with_name("swagger")
SWAGGER_PAGE = "index.html"

_WEB_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "media-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI writes style attributes, holds its icons in data URLs and plays audio from blobs.
_SWAGGER_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes() -> Blueprint:
    """Make the routes of the studio, of the page of cloned voices, and of the one for developers."""
    blueprint = Blueprint("pages")
    files = _read(WEB, _WEB_POLICY)
    pages = {path: files.pop(name) for path, name in PAGES.items()}
    version = hashlib.sha256("".join(files[name].tag for name in sorted(files)).encode()).hexdigest()[:16]
    for path, page in pages.items():
        _add_page(blueprint, path, page.with_body(page.body.replace(b'="web/', b'="web/%b/' % version.encode())))
        if path != "/":
            _remove_slash(blueprint, path)
    _add_parts(blueprint, WEB.name, files)
    _add_versions(blueprint, WEB.name, files, version)
    return blueprint


def docs_routes(document: dict[str, Any], listing: Listing) -> Blueprint:
    """Make the routes of an OpenAPI document and of Swagger UI, which shows it.

    The document is public, so that it names the voices that everybody may speak with, whoever asks for it.
    """
    blueprint = Blueprint("docs")
    files = _read(SWAGGER, _SWAGGER_POLICY)
    _add_page(blueprint, f"/{SWAGGER_PAGE}", files.pop(SWAGGER_PAGE))
    _add_parts(blueprint, SWAGGER.name, files)

    @lru_cache(maxsize=1)
    def written(models: tuple[str, ...], voices: tuple[str, ...]) -> bytes:
        return json.dumps(openapi_schemas.with_names(document, models, voices), separators=(",", ":")).encode()

    @get_and_head(blueprint, "/openapi.json", ctx_public=True)
    async def show_document(request: Request) -> HTTPResponse:
        body = await asyncio.to_thread(lambda: written(*listing.public_ids()))
        return HTTPResponse(body, content_type="application/json")

    return blueprint


def _read(folder: Path, policy: str) -> dict[str, StaticFile]:
    """Read what browsers may have of a folder, by name; its licences stay there."""
    return {path.name: StaticFile.read(path, policy) for path in folder.iterdir() if path.suffix in TYPES}


def _add_page(blueprint: Blueprint, path: str, page: StaticFile) -> None:
    """Serve a page without a slash behind its path, since it names its parts relatively."""

    @get_and_head(blueprint, path, name=f"page_{path.strip('/')}", strict_slashes=True, ctx_public=True)
    async def show_page(request: Request) -> HTTPResponse:
        return page.answer(request)


def _remove_slash(blueprint: Blueprint, path: str) -> None:
    """Send who asks for a page with a slash behind its path to the page."""

    @get_and_head(blueprint, f"{path}/", name=f"slash_{path.strip('/')}", strict_slashes=True, ctx_public=True)
    async def remove_slash(request: Request) -> HTTPResponse:
        return HTTPResponse(status=308, headers={"location": f"..{path}"})


def _add_parts(blueprint: Blueprint, folder: str, files: Mapping[str, StaticFile]) -> None:
    """Serve the files that the pages name."""

    @get_and_head(blueprint, f"/{folder}/<name:str>", ctx_public=True)
    async def show_part(request: Request, name: str) -> HTTPResponse:
        if name not in files:
            raise NotFound("there is no such file")
        return files[name].answer(request)


def _add_versions(blueprint: Blueprint, folder: str, files: Mapping[str, StaticFile], version: str) -> None:
    """Serve them also by paths that have a version in them.

    A page that was opened before the server became a newer one may ask for a part by the older version. It gets the
    part that there is, and asks again the next time.
    """

    @get_and_head(blueprint, f"/{folder}/<asked:str>/<name:str>", name="show_version", ctx_public=True)
    async def show_version(request: Request, asked: str, name: str) -> HTTPResponse:
        if name not in files:
            raise NotFound("there is no such file")
        return files[name].answer(request, lasting=asked == version)
