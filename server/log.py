"""Logs one line for each event: its name and `key=value` pairs, but never what is spoken and never a key."""

from __future__ import annotations

import json
import logging
import math
import sys
import time

_LOGGER = logging.getLogger("qwen3_tts_edge")


class _Formatter(logging.Formatter):
    """Formats lines as `2026-01-31T12:00:00Z INFO message`, in UTC."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (the base class names it)
        """Write the time in ISO 8601, to the second."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))

    def format(self, record: logging.LogRecord) -> str:
        """Write a record on one line, with its stack trace if it has one."""
        return super().format(record).replace("\n", "\\n")


def configure() -> None:
    """Send events to standard error; of Sanic's own loggers only warnings and errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _LOGGER.setLevel(logging.INFO)


def _field(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    plain = text.isprintable() and text.isascii() and not set(text) & set(' "=')
    return text if text and plain else json.dumps(text)


def shows(level: int) -> bool:
    """Whether events of a level are logged."""
    return _LOGGER.isEnabledFor(level)


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log one event; fields that are None are left out, and values are quoted where they need it."""
    pairs = (f"{key}={_field(value)}" for key, value in fields.items() if value is not None)
    _LOGGER.log(level, "%s", " ".join((name, *pairs)))


class Seldom:
    """An event that strangers can cause: it is logged at most once in some seconds, with how often it happened.

    Args:
        name: the event's name.
        seconds: the least time between two lines.
    """

    def __init__(self, name: str, seconds: float = 10) -> None:
        self._name = name
        self._seconds = seconds
        self._next = -math.inf
        self._times = 0

    def event(self, **fields: object) -> None:
        """Count the event once more, and log it as a WARNING if it is time for a line."""
        self._times += 1
        if (now := time.monotonic()) >= self._next:
            event(self._name, level=logging.WARNING, times=self._times, **fields)
            self._times, self._next = 0, now + self._seconds


class Few:
    """Lets so many lines that strangers can cause into the log in a second; how many were left out is logged instead.

    Args:
        left_out: name of the event that says how many were left out; it comes before the next line that is let in.
        most: lines a second.
    """

    def __init__(self, left_out: str, most: int) -> None:
        self._name = left_out
        self._most = self._left = most
        self._left_out = 0
        self._ends = -math.inf

    def one_more(self) -> bool:
        """Whether one more line may be logged now; if not, it is counted."""
        if (now := time.monotonic()) >= self._ends:
            if self._left_out:
                event(self._name, level=logging.WARNING, times=self._left_out)
            self._left, self._left_out, self._ends = self._most, 0, now + 1
        if not self._left:
            self._left_out += 1
            return False
        self._left -= 1
        return True
