"""Finds the bundles that the settings name, fetches one, and tells the operator what there is to know of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from server import config, log
from server.cli.errors import USAGE_ERROR, CommandError
from server.config import Settings
from server.config.values import fetched_models_dir
from server.errors import ModelUnavailableError, UnknownModelError
from server.models.catalogue import Bundle, Bundles, find
from server.models.names import HubBundle, how_to_make, hub_bundle
from server.models.origin import other_origin
from server.voices import catalogue as voices
from server.voices.profiles import Profile

if TYPE_CHECKING:
    from server.hub.pull import Pull
    from server.models.memory import Bounds

NONE_PUBLISHED = (
    "this project has published none yet, and whoever has converted a checkpoint can: qwen3-tts push BUNDLE OWNER/NAME"
)


def hub_model(settings: Settings) -> HubBundle | None:
    """Read `KW_MODEL` as the name of a bundle in a Hub repository; None if it is an id.

    Raises:
        CommandError: it names a precision that does not exist.
    """
    try:
        return hub_bundle(settings.model, settings.precision) if settings.model else None
    except ValueError as error:
        raise CommandError(f"{config.PREFIX}MODEL: {error}", USAGE_ERROR) from None


def open_bundles(settings: Settings, awaited: Bundle | None = None) -> Bundles:
    """Find the bundles of the models folder; it may be empty, because a server may be started before it has bundles.

    Args:
        settings: what the operator chose.
        awaited: a bundle that is to be fetched.

    Raises:
        CommandError: a model that `KW_MODEL` or `KW_MODEL_ALIASES` names is not among them.
    """
    found = find(settings.models_dir) + ([awaited] if awaited else [])
    ids = [bundle.id for bundle in found]
    on_hub = hub_model(settings)
    model = on_hub.id if on_hub else settings.model
    names = {model} if on_hub else {model, f"{model}_{settings.precision}"}
    if model is not None and found and not names & set(ids):
        fetch = f"`qwen3-tts pull {on_hub}` fetches it, or the server with {config.PREFIX}PULL=on" if on_hub else ""
        message = f"{config.PREFIX}MODEL: no model {model!r}; there are {', '.join(ids)}; {fetch or how_to_make(model)}"
        raise CommandError(message, USAGE_ERROR)
    for bundle in found:
        if on_hub and bundle.id == model and (other := other_origin(bundle.folder, on_hub.repo)):
            message = f"{config.PREFIX}MODEL: the model {model} that is there came from {other}"
            raise CommandError(f"{message}; `qwen3-tts pull --force {on_hub}` replaces it", USAGE_ERROR)
    open_with = partial(Bundles, found, model, settings.precision, exact=on_hub is not None)
    bundles = open_with()
    aliases = dict(settings.model_aliases)
    for name, meant in aliases.items() if found else ():
        if name in ids:
            raise CommandError(f"{config.PREFIX}MODEL_ALIASES: {name} is a model of its own", USAGE_ERROR)
        try:
            bundles.resolve(meant)
        except UnknownModelError:
            message = f"{config.PREFIX}MODEL_ALIASES: no model {meant!r}; there are {', '.join(ids)}"
            raise CommandError(message, USAGE_ERROR) from None
    return open_with(aliases)


def open_pull(settings: Settings) -> Pull | None:
    """Prepare the fetching that `KW_PULL` asks for; None if nothing is to be fetched.

    Raises:
        CommandError: `KW_MODEL` does not say what to fetch.
    """
    if settings.pull == "off":
        return None
    wanted = hub_model(settings)
    if wanted is None:
        raise CommandError(
            f"{config.PREFIX}PULL=on fetches the model that {config.PREFIX}MODEL names as OWNER/NAME or "
            f"OWNER/NAME@PRECISION, a Hub repository of ready bundles; {NONE_PUBLISHED}",
            USAGE_ERROR,
        )
    from server.hub.pull import Pull  # huggingface_hub, which nothing else of a server needs

    pull = Pull(wanted, fetched_models_dir(settings.models_dir))
    return None if pull.is_there else pull


def memory_bounds(settings: Settings) -> Bounds:
    """What the settings allow a model to hold in memory."""
    from server.models import memory  # this needs ONNX Runtime

    return memory.Bounds(settings.max_rows, settings.max_prompt + settings.max_frames, settings.execution_provider)


def check_default(settings: Settings, bundle: Bundle) -> None:
    """Compare what the default model needs with the memory of this machine, if its bundle is there.

    Raises:
        CommandError: it cannot run in it.
    """
    from server.models import memory

    if bundle.manifest_or_none is None:
        return
    try:
        warning = memory.check_memory(bundle.manifest_or_none, memory_bounds(settings), memory.machine())
    except memory.MemoryShortage as error:
        raise CommandError(str(error)) from None
    if warning:
        log.event("memory", level=logging.WARNING, reason=warning)


def look_at(settings: Settings, profiles: Mapping[str, Profile], bundle: Bundle) -> None:
    """Say of a bundle that has been fetched what the start says of the others."""
    try:
        check_default(settings, bundle)
    except CommandError as error:
        bundle.problem = str(error)
    tell_of(bundle, profiles)


def tell_of_all(bundles: Bundles, profiles: Mapping[str, Profile]) -> None:
    """Log what the operator should know of the bundles, and that there are none."""
    for bundle in bundles.all():
        tell_of(bundle, profiles)
    try:
        bundles.default()
    except ModelUnavailableError as error:
        log.event("model_unavailable", level=logging.WARNING, reason=error.message)


def tell_of(bundle: Bundle, profiles: Mapping[str, Profile]) -> None:
    """Log what the operator should know of a bundle."""
    if bundle.problem:
        log.event("model_unavailable", level=logging.WARNING, reason=bundle.problem)
    if bundle.manifest_or_none and (missing := voices.left_out(bundle.manifest_or_none, profiles)):
        told = ", ".join(f"{voice} needs the speaker {speaker}" for voice, speaker in missing.items())
        log.event("voices_left_out", level=logging.WARNING, model=bundle.id, reason=told)
