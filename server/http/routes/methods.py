"""Routes for reading: GET and HEAD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from sanic import Blueprint

Handler = TypeVar("Handler", bound=Callable[..., Any])


def get_and_head(blueprint: Blueprint, path: str, **marks: Any) -> Callable[[Handler], Handler]:
    """Make a decorator that serves GET, and HEAD with the same headers; a body that a client sends is not read.

    Args:
        blueprint: the blueprint that the route is added to.
        path: the path of the route.
        marks: further arguments of `Blueprint.route`.
    """
    mark = blueprint.route(path, methods=("GET", "HEAD"), ignore_body=True, **marks)
    return cast(Callable[[Handler], Handler], mark)
