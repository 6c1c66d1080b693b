"""The Hub's refusals and failures in words that a user can act on.

`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` are huggingface_hub's own, most of them read when it is
imported.
"""

from __future__ import annotations

import errno
import importlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cache
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from server.models.fetching import FetchError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_PASSING_STATUS = (408, 425, 429)
_LONGEST_WAIT = 86_400.0
"""Seconds; an answer that asks for more is not believed."""


class HubError(FetchError):
    """What the Hub does not give or take; the message says why and what to do."""


@contextmanager
def understood(repo: str) -> Iterator[None]:
    """Turn what huggingface_hub raises where it cannot read an answer into `HubError`.

    It takes an answer apart without a look at what it is: a list in place of an object is a `TypeError`.

    Args:
        repo: Hub id of the repository that is asked.

    Raises:
        HubError: the answer is not of the Hub's shape.
    """
    try:
        yield
    except (HFValidationError, HfHubHTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError):
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        if isinstance(error, _transport_errors()) and not isinstance(error, JSONDecodeError):  # requests' own is both
            raise
        raise HubError(
            f"{endpoint()} answered for {repo} what no Hub answers ({type(error).__name__}); check HF_ENDPOINT, which "
            "may lead to another server or to a proxy's own page"
        ) from error


@contextmanager
def hub_errors(repo: str, revision: str | None = None, access: Literal["read", "write"] = "read") -> Iterator[None]:
    """Turn the errors of huggingface_hub, and those of the disk that it writes to, into `HubError`.

    Args:
        repo: Hub id of the repository that is asked, `owner/name`.
        revision: branch, tag or commit that is asked for.
        access: what is done to the repository.

    Raises:
        HubError: no such repository or revision, no permission, no connection, a disk that is full or cannot be
            written to, or not in the cache while offline.
    """
    try:
        yield
    except HFValidationError as error:
        raise HubError(f"{repo!r} is neither a folder here nor a Hub id (owner/name)") from error
    except GatedRepoError as error:
        raise HubError(
            f"{repo} is gated: accept its terms on its page at {endpoint()}/{repo}, then set HF_TOKEN to a "
            "token of that account"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"{repo} is unknown to {endpoint()}; check the name, and if the repository is private set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(f"{repo} has no revision {revision!r}") from error
    except OfflineModeIsEnabled as error:
        raise HubError(f"HF_HUB_OFFLINE is set, and {repo} has to be asked; unset it once") from error
    except LocalEntryNotFoundError as error:
        raise _absent(repo, error, access) from error
    except HfHubHTTPError as error:
        raise _answered(repo, error, access) from error
    except _transport_errors() as error:
        raise _broken(repo, error) from error
    except OSError as error:
        if error.errno in _FULL:
            message = (
                "no space is left on the disk; free some, or choose another one by KW_MODELS_DIR (bundles) or HF_HOME"
            )
            raise HubError(message, passing=True) from error
        if error.errno is None:  # huggingface_hub's own: a file that came out shorter or longer than announced
            raise _broken(repo, error) from error
        name = Path(error.filename).name if error.filename else repo  # a server tells strangers, so no folder
        what_to_do = (
            "; let this user write to the models folder, or set KW_MODELS_DIR to one that it may write to"
            if error.errno in _FORBIDDEN
            else ""
        )
        raise HubError(f"{name} cannot be written: {error.strerror}{what_to_do}") from error


def endpoint() -> str:
    """Return the Hub's address without the name and the password that `HF_ENDPOINT` may have: strangers read it."""
    address = urlsplit(constants.ENDPOINT)
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()


@cache
def _transport_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub's HTTP client raises (requests until version 1.0, httpx since then), and hf_xet for it."""
    found: list[type[Exception]] = [RuntimeError]  # hf_xet, which fetches large files, has no class of its own
    for package, name in (("requests", "RequestException"), ("httpx", "HTTPError")):
        try:
            found.append(getattr(importlib.import_module(package), name))
        except ModuleNotFoundError:
            continue
    return tuple(found)


def _broken(repo: str, error: Exception) -> HubError:
    return HubError(
        f"{endpoint()} cannot be reached for {repo}, or the connection broke off ({type(error).__name__}); "
        "check the network or HF_ENDPOINT and run the same command again, which goes on where this one stopped",
        passing=True,
    )


def _answered(repo: str, error: Any, access: str) -> HubError:
    status = error.response.status_code if error.response is not None else 0
    if status in (401, 403):
        return HubError(f"{endpoint()} refuses {repo} (HTTP {status}); set HF_TOKEN to a token that may {access} it")
    wait = None if error.response is None else _retry_after(error.response.headers.get("Retry-After"))
    when = "later" if wait is None else f"in {math.ceil(wait)} s"
    return HubError(
        f"{endpoint()} answered HTTP {status or 'without a status'} for {repo}; try again {when}",
        passing=status >= 500 or status in _PASSING_STATUS,
        retry_after=wait,
    )


def _retry_after(value: str | None) -> float | None:
    """Read the header of this name (RFC 9110, section 10.2.3), seconds or a date; None where it is neither."""
    if value is None:
        return None
    try:
        asked = float(value) if value.strip().isdecimal() else parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None
    return min(max(asked, 0.0), _LONGEST_WAIT)


def _absent(repo: str, error: LocalEntryNotFoundError, access: str) -> HubError:
    if constants.HF_HUB_OFFLINE:
        return HubError(
            f"{repo} is not in the cache {constants.HF_HUB_CACHE} and HF_HUB_OFFLINE is set; unset it once to "
            "download, or give a folder"
        )
    cause = error.__cause__
    if isinstance(cause, HfHubHTTPError):
        return _answered(repo, cause, access)
    return HubError(
        f"{endpoint()} cannot be reached ({type(cause).__name__}) and {repo} is not in the cache; check the "
        "network or HF_ENDPOINT, or give a folder",
        passing=True,
    )
