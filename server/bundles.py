"""The bundles of the models folder, and which of them a request's `model` means.

Knows nothing of requests or engines: a name goes in, a bundle comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.errors import ModelUnavailableError, UnknownModelError
from server.graphs.manifest import MANIFEST_NAME, BundleError, Manifest, Precision, read_manifest

OPENAI_MODELS = frozenset({"tts-1", "tts-1-hd", "gpt-4o-mini-tts"})
KOKORO_MODELS = frozenset(
    "model" + kind for kind in ("", "_fp16", "_quantized", "_q8f16", "_uint8", "_uint8f16", "_q4", "_q4f16")
)
"""What Kokoro Web calls its model's precisions. Whoever sends one of these or of OpenAI's means the default model."""


@dataclass
class Bundle:
    """One folder of the models folder; its name is the model's id."""

    folder: Path
    created: int
    """Unix seconds at which it was made."""
    readable: Manifest | None = None
    problem: str | None = None
    """Why it cannot be served, once that is known."""

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
        default: id of the default model; None takes the first one that can be read. If that fails to load later it
            stays the default: clients were told its id, and another model would have other voices.
        precision: where a model has several bundles, `ID` and `ID_PRECISION`, the one that its id means.
    """

    def __init__(self, found: list[Bundle], default: str | None, precision: Precision | None = None) -> None:
        self._by_id = {bundle.id: bundle for bundle in found}
        self._precision = precision
        self._default = self._preferred(default) if default is not None else self._first_readable()

    def _first_readable(self) -> str | None:
        """The first bundle whose manifest can be read, in the wanted precision if that one can be, else any."""
        readable = [name for name, bundle in self._by_id.items() if bundle.readable]
        if not readable:
            return next(iter(self._by_id), None)
        preferred = self._preferred(readable[0])
        return preferred if preferred in readable else readable[0]

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
        if name in OPENAI_MODELS | KOKORO_MODELS:
            return default
        known = ", ".join([*self._by_id, *sorted(OPENAI_MODELS)])
        raise UnknownModelError(f"there is no such model; there are {known}", param="model")
