"""Brings a ready bundle from a repository of the Hub into the models folder.

A repository has its bundles in folders named by their precision, `int8/manifest.json` and so on; a single one may lie
at its top instead. The bundle comes into a hidden folder beside its place, by huggingface_hub's own download, which
goes on where an earlier one stopped. It takes its place once every file is as its manifest says.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.utils.tqdm import disable_progress_bars

from server.graphs.checking import STAMP_NAME, verify_once
from server.hub.errors import HubError, hub_errors, understood
from server.manifest import MANIFEST_NAME, BundleError, Manifest, read_manifest, sha256_of
from server.models.fetching import Progress
from server.models.names import HubBundle
from server.models.origin import note_origin, other_origin

_LONGEST_MANIFEST = 1 << 22  # bytes
_ROOM = 64 << 20
"""Bytes that must stay free on the disk."""

Tell = Callable[[str], object]


class Pull:
    """One bundle on its way.

    Args:
        wanted: the bundle.
        models: the folder that it comes to.
        revision: branch, tag or commit of the repository; None is its main branch.
        bars: whether huggingface_hub may show a bar for each file, in all of this process.
    """

    def __init__(self, wanted: HubBundle, models: Path, revision: str | None = None, *, bars: bool = False) -> None:
        if not bars:
            disable_progress_bars()
        self._wanted = wanted
        self._revision = revision
        self.target = models / wanted.id
        self._files = models / f".{wanted.id}.part"
        self._total: int | None = None

    @property
    def is_there(self) -> bool:
        """Whether the bundle lies in its place already, and not another repository's of the same name."""
        return (self.target / MANIFEST_NAME).is_file() and other_origin(self.target, self._wanted.repo) is None

    def progress(self) -> Progress:
        """Tell how much of the bundle is on the disk."""
        if self._total is None:
            return Progress(0, None)
        there = self._total if self.is_there else _bytes_in(self._files)
        return Progress(min(there, self._total), self._total)

    def run(self, *, again: bool = False, tell: Tell = lambda line: None) -> Path:
        """Fetch, verify and place the bundle, unless it is there; return its folder.

        Of several processes that want the same bundle one fetches it, and the others wait.

        Args:
            again: fetch it even so; what lies there stays until the new one is whole.
            tell: hears in lines what happens.

        Raises:
            HubError: it cannot be had, or does not verify.
        """
        with hub_errors(self._wanted.repo, self._revision):
            if self.is_there and not again:
                return self.target
            with _held(self.target.with_name(f".{self.target.name}.lock"), tell):
                if again or not self.is_there:  # another process may have brought it
                    if not again:
                        self._check_place()
                    _place(self._fetch(tell), self.target)
                    shutil.rmtree(self._files, ignore_errors=True)
        return self.target

    def _check_place(self) -> None:
        """See that nothing is lost where the bundle goes."""
        if other := other_origin(self.target, self._wanted.repo):
            raise HubError(
                f"the models folder has a {self.target.name} that came from {other}; move it away, or replace it: "
                f"qwen3-tts pull --force {self._wanted}"
            )
        if self.target.is_dir() and any(self.target.iterdir()):
            raise HubError(
                f"the models folder has a {self.target.name} that is no bundle ({MANIFEST_NAME} is missing); move it "
                f"away, or replace it: qwen3-tts pull --force {self._wanted}"
            )

    def _fetch(self, tell: Tell) -> Path:
        """Bring all files and verify them; return the folder that they lie in."""
        if constants.HF_HUB_OFFLINE:
            raise HubError(
                f"{self._wanted} is not in the models folder and HF_HUB_OFFLINE is set; unset it once, or copy the "
                "bundle there"
            )
        repo = self._wanted.repo
        with understood(repo):
            info = HfApi().model_info(repo, revision=self._revision, files_metadata=True)
            sizes = {file.rfilename: None if file.size is None else int(file.size) for file in info.siblings or ()}
        folder = self._folder_of(sizes)
        if (sizes[folder + MANIFEST_NAME] or 0) > _LONGEST_MANIFEST:
            raise HubError(f"{repo}: {folder + MANIFEST_NAME} is too long to be a manifest")

        def get(names: Iterable[str], force: bool = False) -> None:
            for name in names:
                hf_hub_download(repo, folder + name, revision=info.sha, local_dir=self._files, force_download=force)

        get([MANIFEST_NAME])
        place = self._files / folder
        manifest = self._checked(place, {name.removeprefix(folder): size for name, size in sizes.items()})
        self._total = sum(entry.size for entry in manifest.files.values())
        self._check_space(self._total)
        tell(f"{self._wanted}: {len(manifest.files)} files, {self._total / 1e6:,.1f} MB, commit {info.sha}")
        get(manifest.files)
        if damaged := _damaged(place, manifest):
            tell(f"fetched once more, as they came damaged: {', '.join(damaged)}")
            get(damaged, force=True)
        try:
            verify_once(place, manifest)
        except BundleError as error:
            shutil.rmtree(self._files)  # no later try shall build on it
            raise HubError(f"{repo} holds a bundle that does not verify, so it is not used: {error}") from error
        for path in place.iterdir():
            if path.name not in (*manifest.files, MANIFEST_NAME, STAMP_NAME):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        note_origin(place, repo, info.sha)
        return place

    def _folder_of(self, names: Iterable[str]) -> str:
        """Find where in the repository the bundle lies: a prefix of its files' names."""
        wanted, names = self._wanted, set(names)
        for folder in (f"{wanted.precision}/", ""):
            if folder + MANIFEST_NAME in names:
                return folder
        others = sorted(name.partition("/")[0] for name in names if name.endswith(f"/{MANIFEST_NAME}"))
        if others:
            raise HubError(f"{wanted.repo} has no {wanted.precision} bundle; it has {wanted.repo}@{', @'.join(others)}")
        what = f"qwen3-tts convert --model {wanted.repo} --precision {wanted.precision}"
        if any(name.endswith(".safetensors") for name in names):
            raise HubError(f"{wanted.repo} holds a checkpoint and no ready bundle; convert it: {what}")
        raise HubError(f"{wanted.repo} holds no bundle ({MANIFEST_NAME} is missing)")

    def _checked(self, place: Path, sizes: Mapping[str, int | None]) -> Manifest:
        """Read the manifest, and see before anything large is fetched that it is what was asked for.

        Args:
            place: the folder that it lies in.
            sizes: bytes of the repository's files, by their names in that folder.
        """
        wanted = self._wanted
        try:
            manifest = read_manifest(place)
        except BundleError as error:
            raise HubError(f"{wanted.repo}: {error}") from error
        if manifest.precision != wanted.precision:
            raise HubError(
                f"{wanted.repo} holds a bundle of precision {manifest.precision}, not {wanted.precision}; "
                f"ask for {wanted.repo}@{manifest.precision}"
            )
        for name, entry in manifest.files.items():
            size = sizes.get(name, -1)
            if size is not None and size != entry.size:
                state = "lacks" if size < 0 else "has another size of"
                raise HubError(f"{wanted.repo} {state} {name}, which its {MANIFEST_NAME} lists; tell its owner")
        return manifest

    def _check_space(self, total: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        needed = total - min(_bytes_in(self._files), total) + _ROOM
        if free < needed:
            raise HubError(
                f"{self._wanted} needs {needed / 1e6:,.0f} MB in the models folder, {free / 1e6:,.0f} MB are free; "
                "free some space, or set KW_MODELS_DIR",
                passing=True,
            )


def _bytes_in(folder: Path) -> int:
    """Bytes of all files in a folder, in which another thread may move or remove any of them meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).stat().st_size
    return total


def _damaged(place: Path, manifest: Manifest) -> list[str]:
    """Names of the files whose content is not what the manifest says, unless all have been verified already."""
    try:
        verify_once(place, manifest)
    except BundleError:
        return [name for name, entry in manifest.files.items() if sha256_of(place / name) != entry.sha256]
    return []


@contextmanager
def _held(path: Path, tell: Tell) -> Iterator[None]:
    """Hold a lock between processes; it ends with its process, and whoever has had it removes its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell("another process fetches this bundle; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # Windows does not remove a file that another process has opened
            path.unlink(missing_ok=True)


def _place(source: Path, target: Path) -> None:
    """Move a folder to its place, in which an older one may lie."""
    old = target.with_name(f".{target.name}.old")
    _remove(old)
    if os.path.lexists(target):
        target.rename(old)
    try:
        source.rename(target)
    except BaseException:  # a signal too
        if os.path.lexists(old):
            old.rename(target)
        raise
    _remove(old)


def _remove(folder: Path) -> None:
    """Remove a folder, or the link to one alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)
