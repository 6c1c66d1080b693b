"""The command `serve`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from server import config, log
from server.cli.bundles import tell_of_all
from server.cli.errors import USAGE_ERROR, CommandError
from server.cli.startup import Started, engine_loader, start_process
from server.cli.wyoming import open_wyoming
from server.config import Settings
from server.config.addresses import NO_ORIGIN
from server.http import listening
from server.http.key_file import KeyFileError
from server.models.catalogue import Bundles
from server.models.pool_entry import Loader
from server.voices.profiles import Profile

if TYPE_CHECKING:
    from sanic import Sanic

    from server.models.arrival import Arrival
    from server.wyoming.server import WyomingServer


def serve(arguments: argparse.Namespace, settings: Settings) -> None:
    """Serve with ONNX Runtime until a signal ends it."""
    run_server(settings, engine_loader(settings))


def run_server(settings: Settings, load: Loader) -> None:
    """Serve until a signal ends it."""
    from server.http import lifecycle
    from server.models import memory

    started = start_process(settings, load)
    profiles, metrics = started.profiles, started.metrics
    served = open_app(settings, started)
    try:
        sockets = listening.listen(settings.address, settings.port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(f"cannot listen on {settings.address} port {settings.port}: {reason}") from None
    if settings.wyoming_uri is not None:
        _add_wyoming(served, open_wyoming(settings, served.ctx.service, profiles, metrics), settings.drain_seconds)
    memory.spare_what_is_loaded()
    lifecycle.serve(
        served,
        sockets,
        lambda: _announce(settings, started.bundles, profiles, sockets),
        settings.drain_seconds,
        settings.drain_delay_seconds,
    )
    log.event("stopped")
    if started.at_work:
        # Ending Python beneath a thread that is still in native code may crash; there is nothing left to do.
        sys.stderr.flush()
        os._exit(0)


def open_app(settings: Settings, started: Started) -> Sanic[Any, Any]:
    """Make the app of what this process has been started with, and log what the operator should know of its settings.

    Raises:
        CommandError: the file of keys cannot be used.
    """
    from server.http import app

    for name in config.unknown_variables():
        level = logging.WARNING if config.may_hold_a_secret(name) else logging.INFO
        log.event("unknown_setting", level=level, variable=name)
    if NO_ORIGIN in settings.cors_origins:
        reason = "sandboxed frames of every page have the origin null; all of them may call the API"
        log.event("cors_origin_null", level=logging.WARNING, reason=reason)
    try:
        served = app.create_app(settings, started.pool, started.profiles, started.metrics, started.lexicon)
    except KeyFileError as error:
        raise CommandError(f"{config.PREFIX}API_KEYS_FILE: {error}", USAGE_ERROR) from None
    if started.arrival is not None:
        _add_arrival(served, started.arrival)
    return served


def _add_wyoming(served: Sanic[Any, Any], server: WyomingServer, drain_seconds: float) -> None:
    """Have a server start and stop with the one for HTTP; both drain at once, before the engines are closed."""
    draining: list[asyncio.Task[None]] = []

    async def start(_: object) -> None:
        await server.start()

    async def begin_to_stop(_: object) -> None:
        draining.append(asyncio.create_task(server.stop(drain_seconds, served.ctx.at_once)))

    async def stop(_: object) -> None:
        await asyncio.gather(*draining)

    served.register_listener(start, "before_server_start")
    served.register_listener(begin_to_stop, "before_server_stop")
    served.register_listener(stop, "after_server_stop")


def _add_arrival(served: Sanic[Any, Any], arrival: Arrival) -> None:
    async def start(_: object) -> None:
        arrival.start()

    async def stop(_: object) -> None:
        arrival.stop()

    served.register_listener(start, "before_server_start")
    served.register_listener(stop, "before_server_stop")


def _announce(
    settings: Settings, bundles: Bundles, profiles: Mapping[str, Profile], sockets: Sequence[socket.socket]
) -> None:
    url, *others = map(listening.url_of, sockets)
    access = "key" if settings.requires_key else "open to all"
    if not settings.requires_key and settings.auth == "on":
        access = f"loopback only, as there is no key in {config.PREFIX}SECRET_API_KEY or {config.PREFIX}API_KEYS_FILE"
    log.event("listening", url=url, also=" ".join(others) or None, access=access, models=len(bundles.all()))
    tell_of_all(bundles, profiles)
