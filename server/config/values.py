"""How the value of a variable is read, and what it is where nobody sets it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from server.manifest import MANIFEST_NAME

EMBEDDED = Path(__file__).resolve().parent.parent / "embedded"
"""Where a wheel has the embedded model; a checkout has none there, since its `models` hold it."""


def default_models_dir() -> Path:
    """`models` of the checkout that this package lies in, else those of the working directory, else the embedded one.

    A working directory of some other project may have a folder of this name; ours hold bundles.
    """
    checkout, here = EMBEDDED.parent.parent / "models", Path.cwd() / "models"
    if not EMBEDDED.is_dir():
        return checkout if checkout.is_dir() else here
    return here if any(here.glob(f"*/{MANIFEST_NAME}")) else EMBEDDED


def unquoted(text: str) -> str:
    """Less the pair of quotes that `docker run --env-file` leaves where a shell takes it away."""
    text = text.strip()
    quoted = len(text) > 1 and text[0] in "\"'" and text[-1] == text[0] and text[0] not in text[1:-1]
    return text[1:-1].strip() if quoted else text


def words(value: Any) -> Any:
    """The parts between commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def switch(value: Any) -> Any:
    """`on` or `off`, however people and YAML write it."""
    return {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}.get(
        str(value).lower(), value
    )


Seconds = Annotated[float, Field(ge=0, le=366 * 24 * 3600, allow_inf_nan=False)]
