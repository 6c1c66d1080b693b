"""Checkpoints from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from server.hub.errors import HubError, hub_errors

__all__ = ["HubError", "download"]


def download(repo: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """Fetch the files of `repo` that match `patterns` into the Hub cache; an interrupted download is taken up again.

    Args:
        repo: Hub id such as `Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice`.
        patterns: glob patterns of paths in the repository.
        revision: branch, tag or commit; None is the main branch.

    Returns:
        The snapshot's folder, named by its commit.

    Raises:
        HubError: as for `hub_errors`.
    """
    with hub_errors(repo, revision):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
