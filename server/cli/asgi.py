"""Makes the server an ASGI application, for engines that run those: `server.cli.ray_serve` is one."""

from __future__ import annotations

import logging
from collections.abc import Collection

from server import config, log
from server.cli.bundles import tell_of_all
from server.cli.errors import USAGE_ERROR, CommandError
from server.cli.serve import open_app
from server.cli.startup import engine_loader, start_process
from server.config import Settings
from server.http.asgi import AsgiApplication
from server.models.pool_entry import Loader

ANYWHERE = "0.0.0.0"


def application(left_out: Collection[bytes] = ()) -> AsgiApplication:
    """Make the application of the settings in the environment. It is made in the process that runs it.

    Args:
        left_out: names of headers, in lower case, that answers shall not have since the engine adds them itself.

    Raises:
        SettingsError, CommandError: it cannot be, as for the command `serve`, or it would be open to all.
    """
    settings = config.load()
    return open_application(settings, engine_loader(settings), left_out)


def open_application(settings: Settings, load: Loader, left_out: Collection[bytes] = ()) -> AsgiApplication:
    """Make the application with a function that loads engines; otherwise as `application`."""
    if not settings.requires_key and settings.auth == "on":
        raise CommandError(
            f"who can reach the server is not known here, and there is no key: set {config.PREFIX}SECRET_API_KEY or "
            f"{config.PREFIX}API_KEYS_FILE, or {config.PREFIX}AUTH=off to serve everyone",
            USAGE_ERROR,
        )
    started = start_process(settings, load)
    if settings.wyoming_uri is not None:
        reason = "only `qwen3-tts serve` and `qwen3-tts wyoming` speak this protocol"
        log.event("setting_unused", level=logging.WARNING, variable=f"{config.PREFIX}WYOMING_URI", reason=reason)
    # The engine listens, on an address of its own: the server does not take itself for one that is on loopback.
    app = open_app(settings.model_copy(update={"host": ANYWHERE}), started)
    tell_of_all(started.bundles, started.profiles)

    from server.models import memory

    memory.spare_what_is_loaded()
    return AsgiApplication(app, settings.drain_seconds, left_out)
