"""Finds the bundles of the models folder, and the one that a request's `model` means.

It knows nothing of requests or engines: a name goes in, and a bundle comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.errors import ModelFetchingError, ModelUnavailableError, UnknownModelError
from server.manifest import MANIFEST_NAME, BundleError, Manifest, Precision, read_manifest
from server.models.fetching import Fetching
from server.models.names import OPENAI_MODELS, how_to_make, is_source, means_default, normalised


@dataclass
class Bundle:
    """A bundle in the models folder; the name of its folder is the model's id."""

    folder: Path
    created: int
    """When the bundle was made, in Unix seconds."""
    manifest_or_none: Manifest | None = None
    """What the bundle says of itself; None if its manifest cannot be read."""
    problem: str | None = None
    """Why the bundle cannot be served; None if nothing is known to be wrong."""
    fetching: Fetching | None = None
    """How far it has come if it is being fetched; it has no manifest yet then."""

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest.

        Raises:
            ModelUnavailableError: the manifest cannot be read.
            ModelFetchingError: it is not there yet.
        """
        if self.manifest_or_none is None:
            raise self.unavailable()
        return self.manifest_or_none

    def arrive(self) -> None:
        """Read the manifest of a bundle that has been fetched."""
        try:
            self.manifest_or_none = read_manifest(self.folder)
        except BundleError as error:
            self.problem = str(error)
        self.fetching, self.created = None, int(self.folder.stat().st_mtime)

    def unavailable(self) -> ModelUnavailableError | ModelFetchingError:
        """Make the error that says why this bundle cannot be served."""
        if self.fetching is not None:
            message = f"the model {self.id} is being fetched: {self.fetching}"
            return ModelFetchingError(message, param="model", progress=self.fetching.progress())
        return ModelUnavailableError(f"this model cannot be served: {self.problem}", param="model")


def find(folder: Path) -> list[Bundle]:
    """Find the bundles in a folder, ordered by id; hidden folders, which are unfinished conversions, are left out."""
    bundles = []
    for manifest in sorted(folder.glob(f"[!.]*/{MANIFEST_NAME}")) if folder.is_dir() else []:
        bundle = Bundle(manifest.parent, int(manifest.stat().st_mtime))
        try:
            bundle.manifest_or_none = read_manifest(bundle.folder)
        except BundleError as error:
            bundle.problem = str(error)
        bundles.append(bundle)
    return bundles


class Bundles:
    """The bundles that requests can ask for.

    Args:
        found: the bundles, as `find` returns them.
        default: id of the default model; None takes the first one that can be read. It stays the default even if it
            cannot be loaded later: clients were told its id, and another model would have other voices.
        precision: which bundle an id means where both `ID` and `ID_PRECISION` are there.
        aliases: the operator's own names of models, each with a name that `resolve` knows without them.
        exact: whether `default` says its precision already, so that `precision` does not count for it.
    """

    def __init__(
        self,
        found: list[Bundle],
        default: str | None,
        precision: Precision | None = None,
        aliases: Mapping[str, str] | None = None,
        *,
        exact: bool = False,
    ) -> None:
        self._by_id = {bundle.id: bundle for bundle in found}
        self._aliases = {normalised(name): meant for name, meant in (aliases or {}).items()}
        self._precision = precision
        if default is None:
            self._default = self._first_readable()
        else:
            self._default = default if exact else self._preferred(default)

    def _first_readable(self) -> str | None:
        """Find the first bundle whose manifest can be read, in the wanted precision if possible."""
        found = {name: bundle.manifest_or_none for name, bundle in self._by_id.items()}
        readable = [name for name, manifest in found.items() if manifest is not None]
        # A model that only clones voices has none for who names no voice.
        readable.sort(key=lambda name: (manifest := found[name]) is not None and manifest.clones)
        if not readable:
            return next(iter(self._by_id), None)
        preferred = self._preferred(readable[0])
        return preferred if preferred in readable else readable[0]

    def _preferred(self, name: str) -> str:
        """Return the id of this model's bundle in the wanted precision if there is one, else the name as it is."""
        wanted = f"{name}_{self._precision}"
        return wanted if self._precision is not None and wanted in self._by_id else name

    def all(self) -> list[Bundle]:
        """List every bundle, the default one first."""
        return sorted(self._by_id.values(), key=lambda bundle: (bundle.id != self._default, bundle.id))

    @property
    def problems(self) -> list[str]:
        """Reasons why bundles cannot be served."""
        return [bundle.problem for bundle in self.all() if bundle.problem]

    def default(self) -> Bundle:
        """Return the bundle of the default model.

        Raises:
            ModelUnavailableError: there is no bundle, or not this one.
        """
        bundle = self._by_id.get(self._default or "")
        if bundle is None:
            raise ModelUnavailableError(
                "there is no model to speak with: put a bundle into the models folder and start the server again; "
                + how_to_make("")
            )
        return bundle

    def resolve(self, name: str) -> Bundle:
        """Find the bundle that a request's `model` means.

        The name is looked for as an id, as one of the operator's names, as an id in another spelling, as the checkpoint
        that a bundle was made of, and as a name of the default model.

        Raises:
            UnknownModelError: no bundle has this name.
            ModelUnavailableError: the name means the default model, and there is none.
        """
        wanted = self._preferred(name)
        if wanted not in self._by_id and normalised(name) in self._aliases:
            name = self._aliases[normalised(name)]
        found = self._named(name)
        if found is not None:
            return self._by_id[self._preferred(found)]
        default = self.default()
        if means_default(name):
            return default
        known = ", ".join([*self._by_id, *self._aliases, *OPENAI_MODELS])
        raise UnknownModelError(f"there is no such model; there are {known}; {how_to_make(name)}", param="model")

    def _named(self, name: str) -> str | None:
        """Find the id that a name spells, or the id of the bundle that was made of the checkpoint that it names."""
        if name in self._by_id or self._preferred(name) in self._by_id:
            return name
        wanted = normalised(name)
        same = (bundle.id for bundle in self.all() if normalised(bundle.id) == wanted)
        made_of = (
            bundle.id
            for bundle in self.all()
            if bundle.manifest_or_none and is_source(name, bundle.manifest_or_none.source.model)
        )
        return next(same, None) or next(made_of, None)
