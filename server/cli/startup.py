"""Builds bundles, profiles, lexicon and the pool of engines from the settings, for every command."""

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
from server.config import Settings
from server.config.values import fetched_models_dir
from server.errors import ModelUnavailableError, UnknownModelError
from server.graphs.cores import thread_count
from server.manifest import BundleError
from server.metrics import EngineEvents, Metrics
from server.models.catalogue import Bundle, Bundles, find
from server.models.names import HubBundle, how_to_make, hub_bundle
from server.models.origin import other_origin
from server.models.pool_entry import Loader
from server.speech.fetching import Sources
from server.speech.lexicon_file import load_lexicon
from server.text.lexicon import Lexicon, LexiconError
from server.voices import catalogue as voices
from server.voices.folder import VoiceFolder
from server.voices.profiles import Profile, ProfileError, load_profiles

if TYPE_CHECKING:
    from server.hub.pull import Pull
    from server.models.arrival import Arrival
    from server.models.memory import Bounds
    from server.models.pool import EnginePool
    from server.speech.service import SpeechService

NONE_PUBLISHED = (
    "this project has published none yet, and whoever has converted a checkpoint can: qwen3-tts push BUNDLE OWNER/NAME"
)
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
    arrival: Arrival | None
    """Fetches the default model, if it is to be fetched."""

    @property
    def at_work(self) -> bool:
        """Whether a thread still loads, closes or fetches something; the process need not wait for it."""
        return self.pool.at_work or (self.arrival is not None and self.arrival.at_work)


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
        arrival = Arrival(awaited, pull, pool, lambda bundle: _look_at(settings, profiles, bundle))
    return Started(bundles, profiles, lexicon, metrics, pool, arrival)


def _look_at(settings: Settings, profiles: Mapping[str, Profile], bundle: Bundle) -> None:
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
    return EnginePool(bundles, load, partial(memory.model_bytes, bounds=_bounds(settings)), limits, metrics)


def _bounds(settings: Settings) -> Bounds:
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
        warning = memory.check_memory(bundle.manifest_or_none, _bounds(settings), memory.machine())
    except memory.MemoryShortage as error:
        raise CommandError(str(error)) from None
    if warning:
        log.event("memory", level=logging.WARNING, reason=warning)
