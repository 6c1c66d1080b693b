"""Publishes a bundle in a repository of the Hub, with a model card."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    hf_hub_download,
)

from server.graphs.checking import verify_files
from server.hub.card import MARK, model_card
from server.hub.errors import HubError, endpoint, hub_errors, understood
from server.hub.pull import Tell
from server.manifest import MANIFEST_NAME, BundleError, Manifest, Precision, read_manifest

CARD_NAME = "README.md"


def push(folder: Path, repo: str, *, license_id: str | None, private: bool, tell: Tell) -> str:
    """Publish the bundle in a folder of the repository that is named by its precision, in one commit.

    The repository is made if it is not there. Its other bundles stay, and so does a card that somebody has written.

    Args:
        folder: the bundle.
        repo: `owner/name`.
        license_id: the Hub's id of the licence that the weights are under; None is what the manifest says.
        private: whether a new repository is private.
        tell: hears in lines what happens.

    Returns:
        The address of the commit.

    Raises:
        HubError: the bundle does not verify, the licence is not known, or the Hub refuses.
    """
    try:
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
    except BundleError as error:
        raise HubError(f"nothing was published: {error}") from error
    licence = license_id or manifest.source.license
    if licence is None:
        raise HubError(
            f"{folder.name}: its manifest does not name the licence of its checkpoint, {manifest.source.model}; "
            "give the Hub's id of it, such as --license apache-2.0"
        )
    if constants.HF_HUB_OFFLINE:
        raise HubError("HF_HUB_OFFLINE is set, and publishing needs the Hub; unset it")
    if get_token() is None:
        raise HubError(
            f"publishing needs a token that may write: make one at {endpoint()}/settings/tokens and set HF_TOKEN"
        )
    prefix = f"{manifest.precision}/"
    with hub_errors(repo, access="write"), TemporaryDirectory() as scratch:
        api = HfApi()
        with understood(repo):
            api.create_repo(repo, private=private, exist_ok=True)
            there = {file.rfilename for file in api.model_info(repo).siblings or ()}
        files = {prefix + name: folder / name for name in (*manifest.files, MANIFEST_NAME)}
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, path) for name, path in files.items()
        ]
        operations += [CommitOperationDelete(name) for name in sorted(there - files.keys()) if name.startswith(prefix)]
        if _card_is_ours(repo, there, Path(scratch)):
            others = _others(repo, there, Path(scratch), manifest)
            card = model_card(repo, [manifest, *others], licence)
            operations.append(CommitOperationAdd(CARD_NAME, card.encode()))
        else:
            tell(f"{repo} has a {CARD_NAME} that was written by somebody: it stays as it is")
        size = sum(entry.size for entry in manifest.files.values())
        tell(f"{folder.name}: {len(files)} files, {size / 1e6:,.1f} MB, to {endpoint()}/{repo}")
        with understood(repo):
            commit = api.create_commit(repo, operations, commit_message=f"Bundle {manifest.id}, {manifest.precision}")
    return str(commit.commit_url)


def _card_is_ours(repo: str, there: Collection[str], scratch: Path) -> bool:
    """Whether the card may be written: there is none, or `push` has written it."""
    if CARD_NAME not in there:
        return True
    return MARK in Path(hf_hub_download(repo, CARD_NAME, local_dir=scratch)).read_text("utf-8", errors="replace")


def _others(repo: str, there: Collection[str], scratch: Path, manifest: Manifest) -> list[Manifest]:
    """Manifests of the repository's other bundles, for its card.

    Raises:
        HubError: one of them is of another checkpoint.
    """
    found = []
    for precision in get_args(Precision):
        name = f"{precision}/{MANIFEST_NAME}"
        if precision == manifest.precision or name not in there:
            continue
        try:
            other = read_manifest(Path(hf_hub_download(repo, name, local_dir=scratch)).parent)
        except BundleError:  # of another version; its files stay, and the card is of those that can be read
            continue
        if other.source.model != manifest.source.model:
            raise HubError(
                f"{repo} holds bundles of {other.source.model}, and this one is of {manifest.source.model}; "
                "take another repository"
            )
        found.append(other)
    return found
