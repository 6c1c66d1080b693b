"""Checkpoints from the Hugging Face Hub, with its errors in words a user can act on.

`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` are huggingface_hub's own, read when it is imported.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import requests
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


class HubError(ValueError):
    """A checkpoint that the Hub does not give; the message says why and what to do."""


def download(repo: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """Fetch the files of `repo` that match `patterns` into the Hub cache; an interrupted download is taken up again.

    Args:
        repo: Hub id such as `Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice`.
        patterns: glob patterns of paths in the repository.
        revision: branch, tag or commit; None is the main branch.

    Returns:
        The snapshot's folder, named by its commit.

    Raises:
        HubError: no such repository or revision, no permission, no connection, or not in the cache while offline.
    """
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except HFValidationError as error:
        raise HubError(f"{repo!r} is neither a folder here nor a Hub id (owner/name)") from error
    except GatedRepoError as error:
        raise HubError(
            f"{repo} is gated: accept its terms on its page at {constants.ENDPOINT}/{repo}, then set HF_TOKEN to a "
            "token of that account"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"{repo} is unknown to {constants.ENDPOINT}; check the name, and if the repository is private set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(f"{repo} has no revision {revision!r}") from error
    except LocalEntryNotFoundError as error:
        raise HubError(_absent_message(repo, error)) from error
    except HfHubHTTPError as error:
        raise HubError(_http_message(repo, error)) from error
    except (requests.RequestException, OfflineModeIsEnabled) as error:
        raise HubError(
            f"the download of {repo} from {constants.ENDPOINT} broke off ({type(error).__name__}); "
            "run the same command again to take it up where it stopped"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise HubError(f"no space is left in {constants.HF_HUB_CACHE}; free some or set HF_HOME") from error
        if error.errno is None:  # huggingface_hub's own: a file that came out shorter or longer than announced
            raise HubError(
                f"the download of {repo} from {constants.ENDPOINT} broke off; run the same command again to take it up "
                "where it stopped"
            ) from error
        raise


def _http_message(repo: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else "without a status"
    if status in (401, 403):
        return f"{constants.ENDPOINT} refuses {repo} (HTTP {status}); set HF_TOKEN to a token that may read it"
    return f"{constants.ENDPOINT} answered HTTP {status} for {repo}; try again later"


def _absent_message(repo: str, error: LocalEntryNotFoundError) -> str:
    if constants.HF_HUB_OFFLINE:
        return (
            f"{repo} is not in the cache {constants.HF_HUB_CACHE} and HF_HUB_OFFLINE is set; unset it once to "
            "download, or give a folder"
        )
    cause = error.__cause__
    if isinstance(cause, HfHubHTTPError):
        return _http_message(repo, cause)
    return (
        f"{constants.ENDPOINT} cannot be reached ({type(cause).__name__}) and {repo} is not in the cache; check the "
        "network or HF_ENDPOINT, or give a folder"
    )
