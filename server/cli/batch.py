"""The command `batch`: many texts, each into a file of its own, with a manifest of what was made."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from server.cli.startup import (
    USAGE_ERROR,
    CommandError,
    engine_loader,
    lexicon_of_settings,
    open_bundles,
    open_pool,
    open_service,
    profiles_of,
)
from server.config import Settings
from server.errors import ApiError, InvalidRequestError
from server.metrics import Metrics
from server.speech.request import SpeechRequest
from server.speech.request_parsing import of_object

if TYPE_CHECKING:
    pass

MANIFEST = "manifest.jsonl"
"""In the folder of the files: a JSON object a line for each of them."""
MAX_ID_BYTES = 255 - len("..opus.4294967295")
"""As UTF-8, since a file's name has 255 bytes, also that of the file until it is whole."""
_ID = re.compile(r"[\w-][\w. -]{0,199}")
_UNKNOWN = ("stream", "stream_format", "response_format")


class Task(NamedTuple):
    """A text to be spoken."""

    number: int
    """Of its line, from 1."""
    file: str
    request: SpeechRequest

    @property
    def digest(self) -> str:
        """Of all that its audio depends on but the model's weights."""
        return hashlib.sha256(self.request.model_dump_json().encode()).hexdigest()


def batch(arguments: argparse.Namespace, settings: Settings) -> None:
    """Speak the texts of a file; those that the manifest has already are passed over."""
    pool = open_pool(settings, open_bundles(settings), engine_loader(settings), Metrics())
    model = (pool.bundles.resolve(arguments.model) if arguments.model else pool.bundles.default()).id
    shared = {"model": model, "voice": arguments.voice, "response_format": arguments.format}
    tasks = list(tasks_of(arguments.texts, shared))
    output: Path = arguments.output
    try:
        output.mkdir(parents=True, exist_ok=True)
        made = Manifest(output)
    except OSError as error:
        raise CommandError(f"{output}: {error.strerror or error}") from None
    left = [task for task in tasks if not made.has(task)]
    failures = asyncio.run(_speak(settings, pool, left, made))
    done = len(left) - len(failures)
    sys.stderr.write(f"{output}: {done} texts made, {len(tasks) - len(left)} were there already\n")
    if failures:
        raise CommandError("\n".join([f"{len(failures)} texts failed; run the same again to try them:", *failures]))


def tasks_of(path: Path, shared: dict[str, Any]) -> Iterator[Task]:
    """The texts of a file, a line each; blank lines are none.

    Args:
        path: `.jsonl`, of requests; any other has texts.
        shared: fields of those that lack them.

    Raises:
        CommandError: a line is wrong.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")  # a text may have other ends of lines within it
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise CommandError(f"{path}: {reason}", USAGE_ERROR) from None
    seen: dict[str, int] = {}
    for number, ended in enumerate(lines, 1):
        line = ended.removesuffix("\r")
        if not line.strip():
            continue
        try:
            name, request = _request(line, shared) if path.suffix.lower() == ".jsonl" else (None, line)
            fields = {"input": request} if isinstance(request, str) else request
            file = f"{name or f'{number:05}'}.{shared['response_format']}"
            if (before := seen.setdefault(file.lower(), number)) != number:
                raise InvalidRequestError(f"line {before} has the same id")
            yield Task(number, file, of_object({**shared, **fields}))
        except InvalidRequestError as error:
            raise CommandError(f"{path}: line {number}: {error.message}", USAGE_ERROR) from None


def _request(line: str, shared: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    try:
        sent = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"it is no JSON: {error}") from None
    if not isinstance(sent, dict):
        raise InvalidRequestError("it is no JSON object")
    name = sent.pop("id", None)
    if name is not None and (not isinstance(name, str | int) or not _ID.fullmatch(str(name))):
        raise InvalidRequestError("id is the name of a file: letters, digits, blanks, `.`, `_` and `-`")
    if name is not None and len(str(name).encode()) > MAX_ID_BYTES:
        raise InvalidRequestError(f"id is too long for the name of a file: it may have {MAX_ID_BYTES} bytes as UTF-8")
    fields = {key: value for key, value in sent.items() if key not in _UNKNOWN and value is not None}
    return (None if name is None else str(name)), fields


class Manifest:
    """What has been made in a folder: a line for each file, written once the file is whole.

    Args:
        folder: of the files. Lines that were not written to their end, and those of files that are gone, are dropped.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / MANIFEST
        lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        self._made = {entry["file"]: entry for line in lines if (entry := self._entry(line))}
        unfinished = self._path.with_name(f".{MANIFEST}.{os.getpid()}")
        unfinished.write_text("".join(f"{json.dumps(entry)}\n" for entry in self._made.values()), "utf-8")
        unfinished.replace(self._path)

    def _entry(self, line: str) -> dict[str, Any] | None:
        try:
            entry = json.loads(line)
            whole = (self._folder / entry["file"]).stat().st_size == entry["bytes"]
        except (ValueError, KeyError, TypeError, OSError):
            return None
        return entry if whole else None

    def has(self, task: Task) -> bool:
        """Whether a task's file has been made, of the same request."""
        entry = self._made.get(task.file)
        return entry is not None and entry.get("request_sha256") == task.digest

    def add(self, task: Task, **facts: object) -> None:
        """A task's file is whole."""
        size = (self._folder / task.file).stat().st_size
        facts = {"file": task.file, "line": task.number, "input": task.request.input, "bytes": size, **facts}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**facts, "request_sha256": task.digest}) + "\n")

    @property
    def folder(self) -> Path:
        """Of the files."""
        return self._folder


async def _speak(settings: Settings, pool: Any, tasks: list[Task], made: Manifest) -> list[str]:
    """Make the files, as many side by side as there are rows; returns what went wrong, a line each.

    Raises:
        CommandError: a file cannot be written, so that the others could not be either.
    """
    from server.cli.say import write  # this one needs ONNX Runtime

    service = open_service(settings, pool, profiles_of(settings), lexicon_of_settings(settings))
    waiting = iter(tasks)
    failures: list[str] = []
    broken: ExceptionGroup | None = None
    layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} texts [{elapsed} gone, {remaining} left]"

    async def work(bar: tqdm) -> None:
        for task in waiting:
            try:
                speech = await write(service, task.request, made.folder / task.file)
            except ApiError as error:
                failures.append(f"line {task.number}: {error.message}")
            else:
                told = {
                    "model": speech.model,
                    "voice": task.request.voice_name,
                    "speaker": speech.speaker,
                    "seed": speech.seed,
                }
                made.add(task, **told, audio_seconds=round(speech.audio_seconds, 3))
            bar.update()

    try:
        with tqdm(total=len(tasks), bar_format=layout, disable=None) as bar:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(settings.max_rows, len(tasks))):
                    workers.create_task(work(bar))
    except* OSError as group:
        broken = group
    finally:
        await pool.close()
    if broken is not None:
        error = broken.exceptions[0]
        reason = getattr(error, "strerror", None) or error
        lines = [f"{made.folder}: {reason}; make room or mend it, and run the same again to go on", *failures]
        raise CommandError("\n".join(lines))
    return failures
