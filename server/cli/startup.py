"""Builds bundles, profiles, lexicon and the pool of engines from the settings, for every command."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from server import __version__, config, log
from server.config import Settings
from server.errors import UnknownModelError
from server.graphs.cores import thread_count
from server.manifest import BundleError
from server.metrics import EngineEvents, Metrics
from server.models.catalogue import Bundles, find
from server.models.pool_entry import Loader
from server.speech.lexicon_file import load_lexicon
from server.text.lexicon import Lexicon, LexiconError
from server.voices.profiles import Profile, ProfileError, load_profiles

if TYPE_CHECKING:
    from server.models.pool import EnginePool

USAGE_ERROR = 2
FAILURE = 1

SWITCH_SECONDS = 0.001
"""After this time a thread that computes in Python lets another one run. With Python's own 5 ms the event loop and the
engine would wait 5 ms for each such thread, whenever they want to go on."""


class Started(NamedTuple):
    """What a process that serves has been started with."""

    bundles: Bundles
    profiles: Mapping[str, Profile]
    lexicon: Lexicon
    metrics: Metrics
    pool: EnginePool


class CommandError(Exception):
    """A command cannot go on.

    Args:
        message: one line for the user of the command.
        status: the exit code.
    """

    def __init__(self, message: str, status: int = FAILURE) -> None:
        super().__init__(message)
        self.status = status


def check_runtime(settings: Settings) -> None:
    """Check that ONNX Runtime and the execution provider are there.

    Raises:
        CommandError: one of them is missing.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise CommandError(
            "ONNX Runtime is not installed: install qwen3-tts-edge[cpu], or qwen3-tts-edge[cuda] for an NVIDIA GPU"
        )
    from server.graphs.session import ProviderError, check_provider  # needs ONNX Runtime

    try:
        check_provider(settings.execution_provider)
    except ProviderError as error:
        raise CommandError(str(error), USAGE_ERROR) from None


def engine_loader(settings: Settings) -> Loader:
    """Make the function that loads engines.

    Raises:
        CommandError: as for `check_runtime`.
    """
    check_runtime(settings)
    from server.engine.worker import Engine  # this and the next need ONNX Runtime
    from server.graphs.session import PassingError, ProviderError

    def load(folder: Path, events: EngineEvents) -> Engine:
        try:
            return Engine.load(
                folder,
                provider=settings.execution_provider,
                threads=settings.threads,
                max_rows=settings.max_rows,
                max_queue=settings.max_queue,
                max_prompt=settings.max_prompt,
                max_frames=settings.max_frames,
                events=events,
            )
        except PassingError:
            raise
        except ProviderError as error:  # it is told like any other reason why a bundle cannot be served
            raise BundleError(str(error)) from error

    return load


def open_bundles(settings: Settings) -> Bundles:
    """Find the bundles of the models folder; it may be empty, because a server may be started before it has bundles.

    Raises:
        CommandError: a model that `KW_MODEL` or `KW_MODEL_ALIASES` names is not among them.
    """
    found = find(settings.models_dir)
    ids = [bundle.id for bundle in found]
    wanted = {settings.model, f"{settings.model}_{settings.precision}"}
    if settings.model is not None and found and not wanted & set(ids):
        raise CommandError(
            f"{config.PREFIX}MODEL: no model {settings.model!r}; there are {', '.join(ids)}", USAGE_ERROR
        )
    bundles = Bundles(found, settings.model, settings.precision)
    aliases = dict(settings.model_aliases)
    for name, meant in aliases.items() if found else ():
        if name in ids:
            raise CommandError(f"{config.PREFIX}MODEL_ALIASES: {name} is a model of its own", USAGE_ERROR)
        try:
            bundles.resolve(meant)
        except UnknownModelError:
            message = f"{config.PREFIX}MODEL_ALIASES: no model {meant!r}; there are {', '.join(ids)}"
            raise CommandError(message, USAGE_ERROR) from None
    return Bundles(found, settings.model, settings.precision, aliases)


def profiles_of(settings: Settings) -> Mapping[str, Profile]:
    """Load the built-in voice profiles and the operator's own.

    Raises:
        CommandError: `KW_VOICES_FILE` cannot be used.
    """
    try:
        return load_profiles(settings.voices_file)
    except ProfileError as error:
        raise CommandError(f"{config.PREFIX}VOICES_FILE: {error}", USAGE_ERROR) from None


def lexicon_of_settings(settings: Settings) -> Lexicon:
    """Load the operator's pronunciation dictionary.

    Raises:
        CommandError: `KW_LEXICON_FILE` cannot be used.
    """
    try:
        return load_lexicon(settings.lexicon_file)
    except LexiconError as error:
        raise CommandError(f"{config.PREFIX}LEXICON_FILE: {error}", USAGE_ERROR) from None


def start_process(settings: Settings, load: Loader) -> Started:
    """Prepare this process for serving: its heap, its threads, its log, and the pool.

    Raises:
        CommandError: as for `open_bundles`, `profiles_of`, `lexicon_of_settings` and `open_pool`.
    """
    from server.models import memory

    memory.limit_heap_growth()
    sys.setswitchinterval(SWITCH_SECONDS)
    log.configure()
    bundles, profiles, lexicon = open_bundles(settings), profiles_of(settings), lexicon_of_settings(settings)
    log.event("starting", version=__version__)
    metrics = Metrics()
    return Started(bundles, profiles, lexicon, metrics, open_pool(settings, bundles, load, metrics))


def open_pool(settings: Settings, bundles: Bundles, load: Loader, metrics: Metrics) -> EnginePool:
    """Make the pool of engines for these bundles; none of them is loaded yet.

    Raises:
        CommandError: the default model cannot run in the memory of this machine.
    """
    from server.models import memory  # this and the next need ONNX Runtime
    from server.models.pool import EnginePool, PoolLimits

    threads = thread_count(settings.threads)
    if threads < settings.threads:
        reason = f"{config.PREFIX}THREADS={settings.threads} is more than the processors that this process may use"
        log.event("threads_lowered", level=logging.WARNING, threads=threads, reason=reason)
    default = next(iter(bundles.all()), None)
    positions = settings.max_prompt + settings.max_frames
    bounds = memory.Bounds(settings.max_rows, positions, settings.execution_provider)
    if default is not None and default.manifest_or_none is not None:
        try:
            warning = memory.check_memory(default.manifest_or_none, bounds, memory.machine())
        except memory.MemoryShortage as error:
            raise CommandError(str(error)) from None
        if warning:
            log.event("memory", level=logging.WARNING, reason=warning)
    limits = PoolLimits(
        memory=settings.model_memory,
        idle_seconds=settings.idle_unload_seconds,
        wait_seconds=settings.load_wait_seconds,
        max_requests=settings.max_rows + settings.max_queue,
    )
    return EnginePool(bundles, load, partial(memory.model_bytes, bounds=bounds), limits, metrics)
