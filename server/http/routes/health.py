"""GET `/livez`, `/readyz`, `/health` and `/metrics`; all of them answer at once while speech is made.

`/health` is `/readyz` in a word: wyoming-openai takes a server that says `OK` there for Speaches, and reads the voices
from GET `/models/{id}`.
"""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from sanic import Blueprint, Request
from sanic.response import HTTPResponse, json, raw, text

from server.errors import ModelFetchingError, StoppingError
from server.http.error_answers import body_of_error
from server.http.routes.methods import get_and_head
from server.http.schemas import Alive, Ready
from server.metrics import Metrics
from server.models.pool import EnginePool

HEALTHY = "OK"


def health_routes(pool: EnginePool, metrics: Metrics) -> Blueprint:
    """Make the routes. Metrics want a key like any other route, because they tell who speaks when."""
    blueprint = Blueprint("health")

    @get_and_head(blueprint, "/livez", ctx_public=True)
    async def live(request: Request) -> HTTPResponse:
        return json(Alive().model_dump())

    @get_and_head(blueprint, "/readyz", ctx_public=True)
    async def ready(request: Request) -> HTTPResponse:
        if request.app.ctx.leaving or request.app.ctx.draining:
            error = StoppingError("the server is stopping")
            return json({"status": "draining", **body_of_error(error)}, status=error.status)
        try:
            model = pool.check_ready()
        except ModelFetchingError as error:
            fetched, total = error.progress
            how_far = {"status": "fetching", "fetched_bytes": fetched, "total_bytes": total}
            return json({**how_far, **body_of_error(error)}, status=error.status, headers=dict(error.headers))
        return json(Ready(model=model, problems=pool.bundles.problems).model_dump())

    @get_and_head(blueprint, "/health", ctx_public=True)
    async def health(request: Request) -> HTTPResponse:
        answer: HTTPResponse = await ready(request)
        return text(HEALTHY) if answer.status == 200 else answer

    @get_and_head(blueprint, "/metrics")
    async def show_metrics(request: Request) -> HTTPResponse:
        return raw(metrics.text(), content_type=CONTENT_TYPE_LATEST)

    return blueprint
