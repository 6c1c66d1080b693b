"""Routes that are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from sanic import Blueprint

Handler = TypeVar("Handler", bound=Callable[..., Any])


def get_and_head(blueprint: Blueprint, path: str, **marks: Any) -> Callable[[Handler], Handler]:
    """Decorator: serve GET, and HEAD with the same headers; what a client sends as a body is not read.

    Args:
        blueprint: where the route belongs.
        path: of the route.
        marks: further arguments of `Blueprint.route`.
    """
    mark = blueprint.route(path, methods=("GET", "HEAD"), ignore_body=True, **marks)
    return cast(Callable[[Handler], Handler], mark)
