"""Reads the values of settings, and finds the default of the models folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from server.manifest import MANIFEST_NAME

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded"
"""Where a wheel has the embedded model; a checkout has it in `models` instead."""


def default_models_dir() -> Path:
    """Find `models` of the checkout that this package lies in, else of the working directory, else the embedded one.

    The folder of the working directory counts only if it holds bundles, because other projects have one of this name.
    """
    checkout, here = EMBEDDED.parent.parent / "models", Path.cwd() / "models"
    if not EMBEDDED.is_dir():
        return checkout if checkout.is_dir() else here
    return here if any(here.glob(f"*/{MANIFEST_NAME}")) else EMBEDDED


def fetched_models_dir(models_dir: Path) -> Path:
    """Return the folder that bundles are fetched into: the models folder, but never the inside of this package."""
    return Path.cwd() / "models" if models_dir == EMBEDDED else models_dir


def unquoted(text: str) -> str:
    """Remove blanks and one pair of quotes, which a shell takes away and `docker run --env-file` leaves."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] in "\"'" and text[-1] == text[0] and text[0] not in text[1:-1]
    return text[1:-1].strip() if quoted else text


def words(value: Any) -> Any:
    """Split a text at its commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def switch(value: Any) -> Any:
    """Turn the ways in which people and YAML write a switch into `on` or `off`."""
    return {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}.get(
        str(value).lower(), value
    )


Seconds = Annotated[float, Field(ge=0, le=366 * 24 * 3600, allow_inf_nan=False)]
