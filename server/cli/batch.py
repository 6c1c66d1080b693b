"""The command `batch`: many texts, each into a file of its own, with a manifest of what was made."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tqdm import tqdm

from server.audio.formats import FORMATS
from server.cli.errors import CommandError
from server.cli.startup import open_own_service
from server.cli.tasks import Task, tasks_of
from server.config import Settings
from server.errors import ApiError
from server.leftovers import UNFINISHED, remove_leftovers, unfinished

if TYPE_CHECKING:
    from server.speech.rendering import Speech
    from server.speech.service import SpeechService

MANIFEST = "manifest.jsonl"
"""In the folder of the files: a JSON object a line for each of them."""
_UNFINISHED = re.compile(rf"\.(?:.+\.(?:{'|'.join(FORMATS)})|{re.escape(MANIFEST)})\.[0-9]+{re.escape(UNFINISHED)}")
"""Names of files that have not got their own name yet."""
_PARTS = ".manifest.part-*.jsonl"
"""Where each of several processes that make files writes its lines."""


def batch(arguments: argparse.Namespace, settings: Settings) -> None:
    """Speak the texts of a file; those that the manifest has already are passed over."""
    service = open_own_service(settings)
    bundles = service.pool.bundles
    model = (bundles.resolve(arguments.model) if arguments.model else bundles.default()).id
    shared = {"model": model, "voice": arguments.voice, "response_format": arguments.format}
    tasks = list(tasks_of(arguments.texts, shared))
    output: Path = arguments.output
    if names := dict.fromkeys(name for task in tasks for name in task.request.ignored):
        lines = sum(bool(task.request.ignored) for task in tasks)
        sys.stderr.write(f"note: fields of {lines} lines mean nothing here: {', '.join(names)}\n")
    made = open_manifest(output)
    left = list(made.left(tasks))
    failures = asyncio.run(_speak(service, settings.max_rows, left, made))
    done = len(left) - len(failures)
    sys.stderr.write(f"{output}: {done} texts made, {len(tasks) - len(left)} were there already\n")
    if failures:
        raise CommandError("\n".join([f"{len(failures)} texts failed; run the same again to try them:", *failures]))


def open_manifest(folder: Path) -> Manifest:
    """Make the folder of the files, if need be, and read its manifest.

    Raises:
        CommandError: the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Manifest(folder)
    except OSError as error:
        raise CommandError(f"{folder}: {error.strerror or error}") from None


class Manifest:
    """What has been made in a folder: a line for each file.

    A line is written when the file is whole and has not got its name yet: so there is none without a line. An older
    file of that name is removed just before, since the line might fit it. Where several processes make files, each
    writes its lines into a part of its own, and whoever reads the manifest next puts the parts into it.

    Args:
        folder: of the files. Lines that were not written to their end, those of files that are gone, and old files that
            were never finished are dropped.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, path = folder, folder / MANIFEST
        remove_leftovers(folder, _UNFINISHED)
        parts = sorted(folder.glob(_PARTS))
        lines = [line for file in (path, *parts) if file.exists() for line in file.read_text("utf-8").splitlines()]
        self._made = {entry["file"]: entry for line in lines if (entry := self._entry(line))}
        new = unfinished(path)
        new.write_text("".join(f"{json.dumps(entry)}\n" for entry in self._made.values()), "utf-8")
        new.replace(path)
        for part in parts:
            part.unlink()

    def _entry(self, line: str) -> dict[str, Any] | None:
        try:
            entry = json.loads(line)
            whole = (self.folder / entry["file"]).stat().st_size == entry["bytes"]
        except (ValueError, KeyError, TypeError, OSError):
            return None
        return entry if whole else None

    def left(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """The tasks whose files have not been made, of the same requests."""
        for task in tasks:
            entry = self._made.get(task.file)
            if entry is None or entry.get("request_sha256") != task.digest:
                yield task

    @staticmethod
    def part(folder: Path) -> Path:
        """The name of a part for this process."""
        return folder / _PARTS.replace("*", uuid4().hex)


def note(manifest: Path, task: Task, speech: Speech, size: int) -> None:
    """Write into a manifest, or a part of one, that a task's file is whole; an older one of its name is removed."""
    (manifest.parent / task.file).unlink(missing_ok=True)
    facts = {
        "file": task.file,
        "line": task.number,
        "input": task.request.input,
        "bytes": size,
        "model": speech.model,
        "voice": task.request.voice_name,
        "speaker": speech.speaker,
        "seed": speech.seed,
        "audio_seconds": round(speech.audio_seconds, 3),
        "request_sha256": task.digest,
        **({"timestamps": [caption.told() for caption in speech.times.all()]} if speech.times else {}),
    }
    with manifest.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(facts) + "\n")


async def make_files(
    service: SpeechService,
    tasks: Iterable[Task],
    rows: int,
    folder: Path,
    manifest: Path,
    ended: Callable[[Task, Speech | ApiError], object],
) -> None:
    """Make the files of tasks.

    Args:
        service: makes their speech.
        tasks: which files.
        rows: how many side by side.
        folder: of the files.
        manifest: in which they are noted.
        ended: hears of each task's end, and how it was.

    Raises:
        ExceptionGroup: a file cannot be written, so that the others could not be either; it is of `OSError`.
    """
    from server.cli.say import write  # this one needs ONNX Runtime

    waiting = iter(tasks)

    async def work() -> None:
        for task in waiting:
            try:
                end: Speech | ApiError = await write(
                    service, task.request, folder / task.file, partial(note, manifest, task)
                )
            except ApiError as error:
                end = error
            ended(task, end)

    async with asyncio.TaskGroup() as workers:
        for _ in range(rows):
            workers.create_task(work())


async def _speak(service: SpeechService, rows: int, tasks: list[Task], made: Manifest) -> list[str]:
    """Make the files, as many side by side as there are rows; returns what went wrong, a line each.

    Raises:
        CommandError: a file cannot be written, so that the others could not be either.
    """
    failures: list[str] = []
    broken: ExceptionGroup | None = None
    layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} texts [{elapsed} gone, {remaining} left]"
    try:
        with tqdm(total=len(tasks), bar_format=layout, disable=None) as bar:

            def ended(task: Task, end: Speech | ApiError) -> None:
                if isinstance(end, ApiError):
                    failures.append(f"line {task.number}: {end.message}")
                bar.update()

            await make_files(service, tasks, min(rows, len(tasks)), made.folder, made.folder / MANIFEST, ended)
    except* OSError as group:
        broken = group
    finally:
        await service.pool.close()
    if broken is not None:
        error = broken.exceptions[0]
        reason = getattr(error, "strerror", None) or error
        lines = [f"{made.folder}: {reason}; make room or mend it, and run the same again to go on", *failures]
        raise CommandError("\n".join(lines))
    return failures
