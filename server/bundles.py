"""The bundles of the models folder, and the engines loaded from them.

Knows nothing of requests: a name goes in, a bundle or its engine comes out. Runs on one event loop; loads in threads.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server import log
from server.engine.job import Job
from server.errors import ModelLoadingError, ModelUnavailableError, UnknownModelError
from server.graphs.manifest import MANIFEST_NAME, BundleError, Manifest, Precision, read_manifest

DEFAULT_ALIASES = frozenset({"tts-1", "tts-1-hd", "gpt-4o-mini-tts"})
"""OpenAI's model names: whoever sends one means the default model."""


STOPPED = "the engine of this model has stopped; start the server again"


class SpeechEngine(Protocol):
    """What is needed of `server.engine.worker.Engine`."""

    manifest: Manifest

    def prompt(
        self, text: str, *, speaker: str | None, language: str, instruction: str | None
    ) -> NDArray[np.float32]: ...

    def count_tokens(self, text: str) -> int: ...

    def submit(self, job: Job) -> None: ...

    @property
    def rows(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    @property
    def provider(self) -> str: ...

    def close(self) -> None: ...


Loader = Callable[[Path], SpeechEngine]


@dataclass
class Bundle:
    """One folder of the models folder; its name is the model's id."""

    folder: Path
    created: int
    """Unix seconds at which it was made."""
    readable: Manifest | None = None
    problem: str | None = None
    """Why it cannot be served, once that is known."""
    engine: SpeechEngine | None = None
    loading: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself.

        Raises:
            ModelUnavailableError: its manifest cannot be read.
        """
        if self.readable is None:
            raise self.unavailable()
        return self.readable

    def unavailable(self) -> ModelUnavailableError:
        """The error that says why this bundle cannot be served."""
        return ModelUnavailableError(f"this model cannot be served: {self.problem}", param="model")


def find(folder: Path) -> list[Bundle]:
    """The bundles in a folder, in order of their ids; hidden folders (unfinished conversions) are passed over."""
    bundles = []
    for manifest in sorted(folder.glob(f"[!.]*/{MANIFEST_NAME}")) if folder.is_dir() else []:
        bundle = Bundle(manifest.parent, int(manifest.stat().st_mtime))
        try:
            bundle.readable = read_manifest(bundle.folder)
        except BundleError as error:
            bundle.problem = str(error)
        bundles.append(bundle)
    return bundles


class Bundles:
    """The bundles that can be asked for.

    Args:
        found: as `find` gives them.
        default: id of the default model; None takes the first.
        load: makes an engine from a bundle's folder; slow, called in a thread.
        precision: where a model has several bundles, `ID` and `ID_PRECISION`, the one that its id means.
    """

    def __init__(
        self, found: list[Bundle], default: str | None, load: Loader, precision: Precision | None = None
    ) -> None:
        self._by_id = {bundle.id: bundle for bundle in found}
        self._precision = precision
        wanted = default if default is not None else next(iter(self._by_id), None)
        self._default = self._preferred(wanted) if wanted is not None else None
        self._load = load
        self._one_at_a_time = asyncio.Lock()

    def _preferred(self, name: str) -> str:
        """The id of this model's bundle in the wanted precision, if it has one, else the name as it is."""
        wanted = f"{name}_{self._precision}"
        return wanted if self._precision is not None and wanted in self._by_id else name

    def all(self) -> list[Bundle]:
        """Every bundle, the default one first."""
        return sorted(self._by_id.values(), key=lambda bundle: (bundle.id != self._default, bundle.id))

    @property
    def problems(self) -> list[str]:
        """What is known to be wrong with any bundle."""
        return [bundle.problem for bundle in self.all() if bundle.problem]

    @property
    def loading(self) -> bool:
        """Whether a thread may still be loading a bundle."""
        return any(bundle.loading and not (bundle.engine or bundle.problem) for bundle in self.all())

    def default(self) -> Bundle:
        """The default model.

        Raises:
            ModelUnavailableError: there is no bundle at all, or not this one.
        """
        bundle = self._by_id.get(self._default or "")
        if bundle is None:
            raise ModelUnavailableError(
                "there is no model to speak with: put a bundle into the models folder and start the server again"
            )
        return bundle

    def resolve(self, name: str) -> Bundle:
        """The bundle that a request's `model` means.

        Raises:
            UnknownModelError: none.
            ModelUnavailableError: it means the default model and there is none.
        """
        name = self._preferred(name)
        if name in self._by_id:
            return self._by_id[name]
        default = self.default()
        if name in DEFAULT_ALIASES:
            return default
        known = ", ".join([*self._by_id, *sorted(DEFAULT_ALIASES)])
        raise UnknownModelError(f"there is no such model; there are {known}", param="model")

    def check_ready(self) -> str:
        """The default model's id, if it can speak at once.

        Raises:
            ModelLoadingError: soon it will.
            ModelUnavailableError: it will not.
        """
        bundle = self.default()
        self._ready(bundle)
        return bundle.id

    def _ready(self, bundle: Bundle) -> SpeechEngine:
        if bundle.problem is not None:
            raise bundle.unavailable()
        if bundle.engine is None:
            raise ModelLoadingError(f"the model {bundle.id} is being loaded; try again soon", param="model")
        if not bundle.engine.alive:
            raise ModelUnavailableError(STOPPED, param="model")
        return bundle.engine

    async def engine(self, bundle: Bundle, *, wait: bool = False) -> SpeechEngine:
        """The engine of a bundle, loaded on first demand.

        Args:
            bundle: one of ours.
            wait: whether to wait for the default model too, which loads at start and may take long.

        Raises:
            ModelLoadingError: it is the default model and still loading.
            ModelUnavailableError: it cannot be loaded, or its engine has died.
        """
        if bundle.problem is None and bundle.engine is None:
            task = self._start_loading(bundle)
            if wait or bundle.id != self._default:
                await asyncio.wait([task])
        return self._ready(bundle)

    def load_default(self) -> None:
        """Begin to load the default model, if there is one that can be."""
        bundle = self._by_id.get(self._default or "")
        if bundle is not None and bundle.problem is None:
            self._start_loading(bundle)

    def _start_loading(self, bundle: Bundle) -> asyncio.Task[None]:
        if bundle.loading is None:
            bundle.loading = asyncio.create_task(self._load_one(bundle))
        return bundle.loading

    async def _load_one(self, bundle: Bundle) -> None:
        async with self._one_at_a_time:
            log.event("model_loading", model=bundle.id)
            started = asyncio.get_running_loop().time()
            try:
                bundle.engine = await _in_thread(lambda: self._load(bundle.folder))
            except BundleError as error:
                bundle.problem = str(error)
            except Exception as error:
                bundle.problem = f"{bundle.id} could not be loaded ({type(error).__name__}); the server's log says more"
                log.event("model_error", level=logging.ERROR, model=bundle.id, error=repr(error))
        seconds = asyncio.get_running_loop().time() - started
        if bundle.problem is None:
            log.event("model_ready", model=bundle.id, seconds=seconds)
        else:
            log.event("model_unavailable", level=logging.ERROR, model=bundle.id, reason=bundle.problem)

    async def close(self) -> None:
        """End every engine and what runs on it."""
        for bundle in self._by_id.values():
            if bundle.engine is not None:
                await asyncio.to_thread(bundle.engine.close)


async def _in_thread(work: Callable[[], SpeechEngine]) -> SpeechEngine:
    """Run `work` in a daemon thread: unlike a pool's, it does not hold up a shutdown while a large model loads."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[SpeechEngine] = loop.create_future()

    def settle(set_outcome: Callable[[], None]) -> None:
        if not outcome.cancelled():
            set_outcome()

    def run() -> None:
        set_outcome: Callable[[], None]
        try:
            set_outcome = partial(outcome.set_result, work())
        except Exception as error:
            set_outcome = partial(outcome.set_exception, error)
        try:
            loop.call_soon_threadsafe(settle, set_outcome)
        except RuntimeError:  # the loop has closed: the server stopped before the model was there
            return

    threading.Thread(target=run, name="load", daemon=True).start()
    return await outcome
