"""The bundles of the models folder, and which of them a request's `model` means.

Knows nothing of requests or engines: a name goes in, a bundle comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.errors import ModelUnavailableError, UnknownModelError
from server.manifest import MANIFEST_NAME, BundleError, Manifest, Precision, read_manifest
from server.models.names import OPENAI_MODELS, how_to_make, is_source, means_default, plain


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
        aliases: the operator's own names of models, each with a name that `resolve` knows without them.
    """

    def __init__(
        self,
        found: list[Bundle],
        default: str | None,
        precision: Precision | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self._by_id = {bundle.id: bundle for bundle in found}
        self._aliases = {plain(name): meant for name, meant in (aliases or {}).items()}
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
                "there is no model to speak with: put a bundle into the models folder and start the server again; "
                + how_to_make("")
            )
        return bundle

    def resolve(self, name: str) -> Bundle:
        """The bundle that a request's `model` means.

        It is looked for as an id, as one of the operator's names, as an id that is written in another way, as the
        checkpoint that a bundle was made of, and as a name of the default model.

        Raises:
            UnknownModelError: none.
            ModelUnavailableError: it means the default model and there is none.
        """
        wanted = self._preferred(name)
        if wanted not in self._by_id and plain(name) in self._aliases:
            name = self._aliases[plain(name)]
        found = self._named(name)
        if found is not None:
            return self._by_id[self._preferred(found)]
        default = self.default()
        if means_default(name):
            return default
        known = ", ".join([*self._by_id, *self._aliases, *OPENAI_MODELS])
        raise UnknownModelError(f"there is no such model; there are {known}; {how_to_make(name)}", param="model")

    def _named(self, name: str) -> str | None:
        """The id that a name is, in another spelling perhaps, or whose bundle was made of the checkpoint it names."""
        if name in self._by_id or self._preferred(name) in self._by_id:
            return name
        wanted = plain(name)
        same = (bundle.id for bundle in self.all() if plain(bundle.id) == wanted)
        made_of = (
            bundle.id for bundle in self.all() if bundle.readable and is_source(name, bundle.readable.source.model)
        )
        return next(same, None) or next(made_of, None)
