"""The texts of a batch: the lines of a file, each of which becomes a task or what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from server.cli.errors import USAGE_ERROR, CommandError
from server.errors import InvalidRequestError
from server.leftovers import UNFINISHED
from server.speech.foreign_fields import is_asked
from server.speech.request import SpeechRequest
from server.speech.request_parsing import of_object

Line = TypeVar("Line")

MAX_ID_BYTES = 255 - len(f"..opus.4294967295{UNFINISHED}")
"""As UTF-8, since a file's name has 255 bytes, also that of the file until it is whole."""
_ID = re.compile(r"[\w-][\w. -]{0,199}")
_NOT_OF_LINES = ("stream", "stream_format", "response_format")
"""Fields of a request that say how it is answered, which the command decides."""
_UNREAD = ("id", *_NOT_OF_LINES)


class Task(NamedTuple):
    """A text to be spoken."""

    number: int
    """Of its line, from 1."""
    file: str
    request: SpeechRequest
    """Whose `ignored` names the fields of its line that mean nothing here."""
    fields: dict[str, Any]
    """Of which the request was made."""

    @property
    def digest(self) -> str:
        """Of all that its audio depends on but the model's weights. A field that later versions add changes none."""
        return hashlib.sha256(self.request.model_dump_json(exclude_none=True).encode()).hexdigest()


class Wrong(NamedTuple):
    """A line that asks for nothing that can be spoken."""

    number: int
    reason: str


def tasks_of(path: Path, shared: dict[str, Any]) -> Iterator[Task]:
    """The texts of a file, a line each; blank lines are none.

    Args:
        path: `.jsonl`, of requests; any other has texts.
        shared: fields of those that lack them.

    Raises:
        CommandError: a line is wrong.
    """
    for task in readings(lines_of(path), fields_reader(path), shared):
        if isinstance(task, Wrong):
            raise CommandError(f"{path}: line {task.number}: {task.reason}", USAGE_ERROR)
        yield task


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1.

    Raises:
        CommandError: it cannot be read.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")  # a text may have other ends of lines within it
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise CommandError(f"{path}: {reason}", USAGE_ERROR) from None
    for number, ended in enumerate(lines, 1):
        if (line := ended.removesuffix("\r")).strip():
            yield number, line


def fields_reader(path: Path) -> Callable[[str], dict[str, Any]]:
    """What reads the fields of a request from a line of a file, by the file's name; it raises `InvalidRequestError`."""
    return _object if path.suffix.lower() == ".jsonl" else lambda line: {"input": line}


def readings(
    lines: Iterable[tuple[int, Line]], fields_of: Callable[[Line], dict[str, Any]], shared: dict[str, Any]
) -> Iterator[Task | Wrong]:
    """What lines ask for.

    Args:
        lines: each with its number.
        fields_of: reads the fields of a line; it may raise `InvalidRequestError`.
        shared: fields of those that lack them.
    """
    seen: dict[str, int] = {}
    for number, line in lines:
        try:
            sent = fields_of(line)
            name = _name(sent.get("id"))
            said = {key: value for key, value in sent.items() if key not in _UNREAD and value is not None}
            file = f"{name or f'{number:05}'}.{shared['response_format']}"
            if (before := seen.setdefault(file.lower(), number)) != number:
                raise InvalidRequestError(f"line {before} has the same id")
            fields = {**shared, **said}
            request = of_object(fields)
            unanswered = tuple(key for key in _NOT_OF_LINES if is_asked(sent.get(key)) and sent[key] != fields.get(key))
            yield Task(number, file, request.ignoring((*request.ignored, *unanswered)), fields)
        except InvalidRequestError as error:
            yield Wrong(number, error.message)


def _object(line: str) -> dict[str, Any]:
    try:
        sent = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"it is no JSON: {error}") from None
    if not isinstance(sent, dict):
        raise InvalidRequestError("it is no JSON object")
    return sent


def _name(given: object) -> str | None:
    """The name of a line's file, without its ending; None where it has none of its own."""
    if given is None:
        return None
    if not isinstance(given, str | int) or not _ID.fullmatch(str(given)):
        raise InvalidRequestError("id is the name of a file: letters, digits, blanks, `.`, `_` and `-`")
    if len(str(given).encode()) > MAX_ID_BYTES:
        raise InvalidRequestError(f"id is too long for the name of a file: it may have {MAX_ID_BYTES} bytes as UTF-8")
    return str(given)
