"""GET `/livez` and `/readyz`; both answer at once, whatever the engine is doing."""

from __future__ import annotations

from sanic import Blueprint, Request
from sanic.response import HTTPResponse, json

from server.bundles import Bundles


def health_routes(bundles: Bundles) -> Blueprint:
    """The routes over `bundles`."""
    blueprint = Blueprint("health")

    @blueprint.get("/livez", ctx_public=True)
    async def live(request: Request) -> HTTPResponse:
        return json({"status": "alive"})

    @blueprint.get("/readyz", ctx_public=True)
    async def ready(request: Request) -> HTTPResponse:
        return json({"status": "ready", "model": bundles.check_ready(), "problems": bundles.problems})

    return blueprint
