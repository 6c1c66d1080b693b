"""Routes for reading: GET and HEAD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from sanic import Blueprint

Handler = TypeVar("Handler", bound=Callable[..., Any])


def get_and_head(blueprint: Blueprint, path: str, *others: str, **marks: Any) -> Callable[[Handler], Handler]:
    """Make a decorator that serves GET, and HEAD with the same headers; a body that a client sends is not read.

    Args:
        blueprint: the blueprint that the route is added to.
        path: the path of the route.
        others: methods beside these two. A path with a parameter needs them here: of several routes Sanic names
            no methods in the answer to a method that none of them has.
        marks: further arguments of `Blueprint.route`.
    """
    mark = blueprint.route(path, methods=("GET", "HEAD", *others), ignore_body=True, **marks)
    return cast(Callable[[Handler], Handler], mark)
