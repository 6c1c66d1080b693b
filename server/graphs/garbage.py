"""A full collection of garbage that has certainly taken place when it returns."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

_OLDEST = 2
"""The generation that a full collection is reported with."""
_COLLECTING_SECONDS = 0.001
"""Seconds between two looks at whether another thread's collection has ended."""


def collect_garbage() -> None:
    """Free everything that was garbage when this was called.

    `gc.collect` does nothing while another thread collects. Such a collection may have begun before the garbage was
    any, and another thread runs in the middle of it whenever a finalizer lets it. So this function waits for the end of
    that collection and makes its own.
    """
    thread = threading.get_ident()
    done: list[bool] = []

    def note(phase: str, info: dict[str, Any]) -> None:
        if phase == "stop" and info["generation"] == _OLDEST and threading.get_ident() == thread:
            done.append(True)

    gc.callbacks.append(note)
    try:
        gc.collect()
        while not done:
            time.sleep(_COLLECTING_SECONDS)
            gc.collect()
    finally:
        gc.callbacks.remove(note)
