"""Names files that are not finished, and removes what processes that were killed have left of them."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path

LEFT_SECONDS = 3600.0
"""Seconds without a write after which an unfinished file is nobody's any more; those who write one take far less."""


UNFINISHED = ".qwen3-tts-part"
"""The end of the name of a file that `unfinished` names: nobody else's hidden files have it."""
_NAME = re.compile(rf"\.(.+)\.\d+{re.escape(UNFINISHED)}")


def unfinished(path: Path) -> Path:
    """The name, for this process, of a file until it is complete."""
    return path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")


def finished(path: str) -> str:
    """The path of such a file once it is complete, for who is told of it; any other path is as it was."""
    found = _NAME.fullmatch(Path(path).name)
    return str(Path(path).with_name(found[1])) if found else path


def remove_leftovers(folder: Path, names: re.Pattern[str]) -> None:
    """Remove the files of a folder that have such names, which unfinished files alone have, once nobody writes them."""
    found: list[Path] = []
    with suppress(OSError):  # who reads the folder tells that it cannot be read
        found = [path for path in folder.glob(".*") if names.fullmatch(path.name)]
    for path in found:
        with suppress(OSError):  # another process has removed it, or this one may not: it does no harm where it is
            if time.time() - path.stat().st_mtime > LEFT_SECONDS:
                path.unlink()
