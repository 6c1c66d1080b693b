"""Opens what speech needs, as the settings say, for every command: profiles, lexicon, engines, service."""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from server import __version__, config, log
from server.audio.encoders import MARK
from server.cli.bundles import check_default, look_at, memory_bounds, open_bundles, open_pull
from server.cli.errors import USAGE_ERROR, CommandError
from server.config import Settings
from server.graphs.cores import thread_count
from server.manifest import BundleError
from server.metrics import EngineEvents, Metrics
from server.models.catalogue import Bundle, Bundles
from server.models.pool_entry import Loader
from server.speech.fetching import Sources
from server.speech.lexicon_file import load_lexicon
from server.text.lexicon import Lexicon, LexiconError
from server.voices.folder import VoiceFolder
from server.voices.profiles import Profile, ProfileError, load_profiles

if TYPE_CHECKING:
    from server.models.arrival import Arrival
    from server.models.pool import EnginePool
    from server.speech.service import SpeechService

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
    arrival: Arrival | None
    """Fetches the default model, if it is to be fetched."""

    @property
    def at_work(self) -> bool:
        """Whether a thread still loads, closes or fetches something; the process need not wait for it."""
        return self.pool.at_work or (self.arrival is not None and self.arrival.at_work)


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
        CommandError: as for `open_pull`, `open_bundles`, `profiles_of`, `lexicon_of_settings` and `open_pool`.
    """
    from server.models import memory
    from server.models.arrival import Arrival

    memory.limit_heap_growth()
    sys.setswitchinterval(SWITCH_SECONDS)
    log.configure()
    pull = open_pull(settings)
    awaited = Bundle(pull.target, int(time.time())) if pull else None
    bundles, profiles, lexicon = open_bundles(settings, awaited), profiles_of(settings), lexicon_of_settings(settings)
    log.event("starting", version=__version__)
    metrics = Metrics()
    pool = open_pool(settings, bundles, load, metrics)
    arrival = None
    if pull and awaited:
        arrival = Arrival(awaited, pull, pool, lambda bundle: look_at(settings, profiles, bundle))
    return Started(bundles, profiles, lexicon, metrics, pool, arrival)


def open_service(
    settings: Settings, pool: EnginePool, profiles: Mapping[str, Profile], lexicon: Lexicon | None = None
) -> SpeechService:
    """Make what starts the speech of requests."""
    from server.speech.cloning import References  # these need ONNX Runtime
    from server.speech.service import SpeechService

    return SpeechService(
        pool,
        profiles,
        settings.max_input_chars,
        lexicon or Lexicon(),
        settings.text_wait_seconds,
        VoiceFolder(settings.voices_dir, settings.max_voices, settings.max_voices_per_key),
        References(
            Sources(settings.max_reference, settings.reference_hosts, settings.reference_dir),
            settings.max_reference_seconds,
        ),
        MARK if settings.mark_synthetic == "on" else "",
    )


def open_own_service(settings: Settings) -> SpeechService:
    """Make what speaks in a process that serves nobody else; who asked for it closes its pool.

    Raises:
        CommandError: as for `open_bundles`, `profiles_of`, `lexicon_of_settings`, `engine_loader` and `open_pool`.
    """
    pool = open_pool(settings, open_bundles(settings), engine_loader(settings), Metrics())
    return open_service(settings, pool, profiles_of(settings), lexicon_of_settings(settings))


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
    if default := next(iter(bundles.all()), None):
        check_default(settings, default)
    limits = PoolLimits(
        memory=settings.model_memory,
        idle_seconds=settings.idle_unload_seconds,
        wait_seconds=settings.load_wait_seconds,
        max_requests=settings.max_rows + settings.max_queue,
    )
    return EnginePool(bundles, load, partial(memory.model_bytes, bounds=memory_bounds(settings)), limits, metrics)
