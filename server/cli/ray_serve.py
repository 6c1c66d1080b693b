"""The server as an application of Ray Serve: `serve run server.cli.ray_serve:app`, or `deploy/ray/serve.yaml`.

It needs the extra `ray`. What this module makes travels to the replicas by its name; only there are settings read, and
bundles and engines opened.
"""

from __future__ import annotations

from ray import serve

from server.cli.asgi import application
from server.http.asgi import AsgiApplication

_OF_RAY = (b"x-request-id",)
"""Headers that Ray's proxy adds to each answer. The server has had the id from it, and would say it a second time."""

_running: list[AsgiApplication] = []
"""This replica's application."""


def build() -> AsgiApplication:
    """Make the application of this replica, which has a process of its own."""
    _running.append(application(_OF_RAY))
    return _running[-1]


async def check() -> None:
    """See whether this replica can speak, as `/readyz` tells it.

    Raises:
        NotReady: it cannot.
    """
    for one in _running:
        await one.check_ready()


class Replica:
    """A replica: a server with a pool of models of its own."""

    async def check_health(self) -> None:
        """Tell Ray whether the replica can speak; Ray replaces one that cannot three times running.

        Raises:
            NotReady: it cannot.
        """
        await check()


app = serve.deployment(name="Speech")(serve.ingress(build)(Replica)).bind()
