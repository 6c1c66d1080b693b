"""Home Assistant's protocol, by the command `wyoming` or beside HTTP."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from server import config, log
from server.cli.bundles import tell_of_all
from server.cli.errors import CommandError
from server.cli.startup import engine_loader, open_service, start_process
from server.config import Settings
from server.http import listening
from server.http.rounds import new_event_loop
from server.http.stop_signals import on_stop_signal
from server.metrics import Metrics
from server.models.pool_entry import Loader
from server.voices.profiles import Profile

if TYPE_CHECKING:
    from server.speech.service import SpeechService
    from server.wyoming.server import WyomingServer

DEFAULT_URI = "tcp://127.0.0.1:10200"
"""The port that Wyoming's speech servers have by habit."""


def wyoming(arguments: argparse.Namespace, settings: Settings) -> None:
    """Serve Home Assistant's protocol alone, with ONNX Runtime, until a signal ends it."""
    run_wyoming(settings, engine_loader(settings))


def run_wyoming(settings: Settings, load: Loader) -> None:
    """Serve it until a signal ends it; a second signal ends the time in which texts are heard to their end."""
    started = start_process(settings, load)
    bundles, profiles, lexicon, metrics, pool, arrival = started
    service = open_service(settings, pool, profiles, lexicon)
    server = open_wyoming(settings, service, profiles, metrics)
    tell_of_all(bundles, profiles)

    async def serve() -> None:
        stop, at_once = asyncio.Event(), asyncio.Event()
        with on_stop_signal(lambda: (at_once if stop.is_set() else stop).set()):
            pool.load_default()
            await server.start()
            if arrival is not None:
                arrival.start()
            try:
                await stop.wait()
            finally:
                if arrival is not None:
                    arrival.stop()
                log.event("draining", seconds=float(settings.drain_seconds))
                await server.stop(settings.drain_seconds, at_once)
                await pool.close()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve())
    log.event("stopped")
    if started.at_work:  # as for the command `serve`
        sys.stderr.flush()
        os._exit(0)


def open_wyoming(
    settings: Settings, service: SpeechService, profiles: Mapping[str, Profile], metrics: Metrics
) -> WyomingServer:
    """A server that listens already and has yet to be started.

    Raises:
        CommandError: its packages are not installed, or it cannot listen there.
    """
    if not all(importlib.util.find_spec(name) for name in ("wyoming", "zeroconf")):
        raise CommandError("the Wyoming protocol is not installed: pip install 'qwen3-tts-edge[wyoming]'")
    from server.wyoming.conversation import Doors, Limits
    from server.wyoming.information import Information
    from server.wyoming.server import WyomingServer

    uri = settings.wyoming_uri or DEFAULT_URI
    place = urlsplit(uri)
    assert place.hostname is not None and place.port is not None  # the settings have seen to it
    try:
        sockets = listening.listen(place.hostname, place.port)
    except OSError as error:
        raise CommandError(f"{config.PREFIX}WYOMING_URI={uri}: {error.strerror or error}") from None
    limits = Limits(
        connections=settings.max_sockets,
        idle_seconds=settings.socket_idle_seconds,
        timeout=settings.request_timeout,
        text_chars=settings.max_input_chars,
    )
    doors = Doors(service, metrics, Information(service.pool.bundles, profiles, service.voices), limits)
    return WyomingServer(doors, sockets, announce=settings.wyoming_announce == "on")
