"""Speaks many texts on a Ray cluster, each into a file of its own: `python deploy/ray/batch.py texts.jsonl -o DIR`.

It is `qwen3-tts batch` for many machines, with the same lines, files and manifest, and wants the extra `ray`. Models
and the folder of the files lie where every machine sees them, and `KW_...` settings hold for all workers. A file has
its line in the manifest before it has its name. So each text is made once, whatever dies meanwhile; but what has been
begun and not ended begins again. A line that is wrong, or that fails, costs that line alone: `failed.jsonl` says why,
and the same command again tries it again.

Without `RAY_ADDRESS` it is a cluster of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray

from server import config
from server.audio.encoders import FORMATS
from server.cli.batch import Manifest, make_files, open_manifest
from server.cli.bundles import open_bundles
from server.cli.errors import CommandError
from server.cli.startup import open_own_service
from server.cli.tasks import Task, Wrong, fields_reader, lines_of, readings
from server.errors import ApiError, InvalidRequestError
from server.speech.request_parsing import of_object

FAILED = "failed.jsonl"
"""In the folder of the files: why lines were not spoken the last time."""
LINES_A_ROW = 4
"""Of what a worker takes at a time, for each of its rows. At the end of that rows wait for the last ones."""


class Speaker:
    """A worker: a pool of models in a process of its own.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: str) -> None:
        settings = config.load()
        self._service = open_own_service(settings)
        self._rows, self._folder = settings.max_rows, Path(folder)
        self._part = Manifest.part(self._folder)
        self._loop = asyncio.Runner()

    def __call__(self, lines: dict[str, Any]) -> dict[str, list[Any]]:
        """Make the files of some lines.

        Args:
            lines: columns `line`, `file` and `fields`, in JSON.

        Returns:
            Columns `line` and `problem`, which is empty where the file has been made.
        """
        rows = zip(lines["line"], lines["file"], map(json.loads, lines["fields"]), strict=True)
        tasks = [Task(int(line), str(file), of_object(fields), fields) for line, file, fields in rows]
        problems = {task.number: "" for task in tasks}

        def ended(task: Task, end: object) -> None:
            problems[task.number] = end.message if isinstance(end, ApiError) else ""

        # Nothing lies there at the start but what is made: these lines had a worker that died after them.
        left = [task for task in tasks if not (self._folder / task.file).exists()]
        self._loop.run(make_files(self._service, left, self._rows, self._folder, self._part, ended))
        return {"line": list(problems), "problem": list(problems.values())}


def rows_of(path: Path) -> tuple[Iterator[tuple[int, Any]], Callable[[Any], dict[str, Any]]]:
    """The lines of a file, and what reads the fields of one of them. A row of Parquet has a field in each column."""
    if path.suffix.lower() != ".parquet":
        return lines_of(path), fields_reader(path)
    import pyarrow.parquet

    def rows() -> Iterator[tuple[int, Any]]:
        number = 0
        try:
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
                for row in batch.to_pylist():
                    yield (number := number + 1), row
        except (OSError, pyarrow.ArrowException) as error:
            raise CommandError(f"{path}: {error}", 2) from None

    def fields_of(row: dict[str, Any]) -> dict[str, Any]:
        try:
            fields: dict[str, Any] = json.loads(json.dumps(row))
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(f"a column holds what no request has: {error}") from None
        return fields

    return rows(), fields_of


def speak(options: argparse.Namespace) -> list[Wrong]:
    """Make the files that are not there yet; returns what went wrong.

    Raises:
        CommandError: nothing can be made.
    """
    settings = config.load()
    bundles = open_bundles(settings)
    model = (bundles.resolve(options.model) if options.model else bundles.default()).id
    shared = {"model": model, "voice": options.voice, "response_format": options.format}
    failures: list[Wrong] = []
    tasks: list[Task] = []
    for task in readings(*rows_of(options.texts), shared):
        failures.append(task) if isinstance(task, Wrong) else tasks.append(task)
    made = open_manifest(options.output)
    left = list(made.left(tasks))
    sys.stderr.write(f"{options.output}: {len(left)} texts to be made, {len(tasks) - len(left)} are there\n")
    if not left:
        return failures
    names = {name: value for name, value in os.environ.items() if name.startswith(config.PREFIX)}
    ray.init(runtime_env={"env_vars": {**names, f"{config.PREFIX}THREADS": str(options.cpus)}})
    workers = options.workers or max(1, int(ray.cluster_resources()["CPU"] // options.cpus))
    together = LINES_A_ROW * settings.max_rows
    items = [{"line": task.number, "file": task.file, "fields": json.dumps(task.fields)} for task in left]
    lines = ray.data.from_items(items, override_num_blocks=-(-len(items) // together))
    spoken = lines.map_batches(
        Speaker,
        fn_constructor_args=(str(options.output.absolute()),),
        batch_size=together,
        batch_format="numpy",
        num_cpus=options.cpus,
        concurrency=workers,
    )
    failures += [Wrong(int(row["line"]), str(row["problem"])) for row in spoken.iter_rows() if row["problem"]]
    open_manifest(options.output)  # puts the workers' parts into one
    return failures


def tell(failures: list[Wrong], folder: Path) -> None:
    """Write why lines were not spoken into the folder of the files."""
    unfinished = folder / f".{FAILED}"
    unfinished.write_text("".join(f"{json.dumps(wrong._asdict())}\n" for wrong in sorted(failures)), "utf-8")
    unfinished.replace(folder / FAILED)


def at_least_one(text: str) -> int:
    """Read a number of an option.

    Raises:
        argparse.ArgumentTypeError: it is none, or less than one.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return int(text)


def main() -> int:
    """Returns the exit code: 0, 1 where lines have failed, 2 where nothing can be made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path, metavar="FILE", help="a .txt, a .jsonl or a .parquet")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--format", choices=FORMATS, default="wav", help="of the files (%(default)s)")
    parser.add_argument("--voice", help="of the texts that name none")
    parser.add_argument("--model", help="of the texts that name none; by default the default model")
    parser.add_argument(
        "--cpus", type=at_least_one, default=2, help="cores of a worker, which are its KW_THREADS (%(default)s)"
    )
    parser.add_argument("--workers", type=at_least_one, help="by default as many as the cluster has cores for")
    options = parser.parse_args()
    try:
        failures = speak(options)
    except (config.SettingsError, CommandError, ApiError) as error:
        sys.stderr.write(f"batch: {error}\n")
        return 2
    tell(failures, options.output)
    if failures:
        sys.stderr.write(f"{len(failures)} texts failed: {options.output / FAILED} says why\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
