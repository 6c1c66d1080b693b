"""Remembers which repository of the Hub a bundle came from.

A bundle's folder is named by the repository without its owner, so that `me/Voice` and `you/Voice` have one place. A
file beside the bundle's own says whose bundle lies there. Bundles that were converted or copied here have none.
"""

from __future__ import annotations

import json
from pathlib import Path

ORIGIN_NAME = ".hub.json"


def note_origin(folder: Path, repo: str, commit: str | None) -> None:
    """Note where the bundle in a folder came from.

    Args:
        folder: of the bundle.
        repo: Hub id of the repository, `owner/name`.
        commit: of the repository, if it is known.
    """
    (folder / ORIGIN_NAME).write_text(json.dumps({"repo": repo, "commit": commit}) + "\n", "utf-8")


def other_origin(folder: Path, repo: str) -> str | None:
    """Return the repository that the bundle in a folder came from, if it is known to be another one than `repo`."""
    try:
        noted = json.loads((folder / ORIGIN_NAME).read_text("utf-8"))
    except (OSError, ValueError):  # none, or nobody's: whoever put the bundle there has said that it is this one
        return None
    origin = noted.get("repo") if isinstance(noted, dict) else None
    # The Hub takes names in any case.
    return origin if isinstance(origin, str) and origin.lower() != repo.lower() else None
