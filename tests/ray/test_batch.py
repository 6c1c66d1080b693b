"""`deploy/ray/batch.py` on a Ray of this machine: each line is made once, whoever dies meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import soundfile

from server.cli.batch import MANIFEST
from tests.ray.cluster import START_SECONDS, program, wait
from tests.server.running import ROOT, clean_environment

BATCH = ROOT / "deploy" / "ray" / "batch.py"
WORDS = ("train", "book", "river", "garden", "rain", "window", "morning")
LINES = 60


@pytest.fixture
def home() -> Iterator[Path]:
    """Of short name, because sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as home:
        yield Path(home)


class Batch:
    """The command, as a process of its own with a Ray of its own."""

    def __init__(self, home: Path, texts: Path, output: Path) -> None:
        self.output = output
        self._log = home / "batch.log"
        environment = clean_environment(
            HOME=str(home),
            RAY_USAGE_STATS_ENABLED="0",
            RAY_TMPDIR=str(home),
            KW_MODELS_DIR=str(ROOT / "models"),
            KW_MAX_ROWS="2",
        )
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [program("python"), BATCH, texts, "-o", output, "--workers", "2", "--cpus", "1"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> int:
        return self.process.wait(START_SECONDS)

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def files(self) -> dict[str, tuple[int, int]]:
        """Inode and time of each file that is whole."""
        return {path.name: ((found := path.stat()).st_ino, found.st_mtime_ns) for path in self.output.glob("[!.]*.wav")}

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def manifest_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]


def check_each_line_once(folder: Path, numbers: list[int]) -> None:
    counted = Counter(entry["line"] for entry in manifest_of(folder))
    assert counted == Counter(numbers)
    for entry in manifest_of(folder):
        path = folder / entry["file"]
        assert path.stat().st_size == entry["bytes"]
        assert soundfile.info(path).duration == pytest.approx(entry["audio_seconds"], abs=1e-3)
    left = {path.name for path in folder.iterdir()} - {entry["file"] for entry in manifest_of(folder)}
    assert left <= {MANIFEST, "failed.jsonl"}


def test_interrupted_and_taken_up_again_each_line_is_made_once(home: Path, tmp_path: Path) -> None:
    texts, output = tmp_path / "texts.jsonl", tmp_path / "out"
    lines = [json.dumps({"input": f"The {WORDS[number % 7]} came at {number}."}) for number in range(LINES)]
    lines[4] = "{"
    lines[9] = json.dumps({"input": "Nobody says it.", "voice": "nobody"})
    texts.write_text("\n".join(lines))
    good = [number for number in range(1, LINES + 1) if number not in (5, 10)]

    first = Batch(home, texts, output)
    wait(lambda: first.process.poll() is not None or len(first.files()) >= 6, "some files are made")
    assert first.process.poll() is None, first.log
    family = first.family()
    first.process.send_signal(signal.SIGKILL)
    first.wait()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, START_SECONDS)
    made = first.files()
    assert 0 < len(made) < len(good)

    second = Batch(home, texts, output)
    wait(lambda: second.process.poll() is not None or len(second.files()) >= len(made) + 6, "it goes on")
    assert second.process.poll() is None, second.log
    worker = next(each for each in second.family() if "Speaker" in " ".join(each.cmdline()))
    worker.kill()  # a worker dies, and another one goes on with its lines
    assert second.wait() == 1, second.log
    assert second.files().items() >= made.items()
    check_each_line_once(output, good)
    failed = {wrong["number"]: wrong["reason"] for wrong in map(json.loads, (output / "failed.jsonl").open())}
    assert set(failed) == {5, 10} and "it is no JSON" in failed[5] and "voices are hibari" in failed[10]

    before = second.files()
    lines[4], lines[9] = json.dumps({"input": "Five."}), json.dumps({"input": "Ten."})
    texts.write_text("\n".join(lines))
    third = Batch(home, texts, output)
    assert third.wait() == 0, third.log
    assert third.files().items() >= before.items() and len(third.files()) == LINES
    check_each_line_once(output, [*good, 5, 10])
    assert (output / "failed.jsonl").read_text() == ""


def test_parquet(home: Path, tmp_path: Path) -> None:
    texts, output = tmp_path / "texts.parquet", tmp_path / "out"
    rows = {"input": ["One.", "Two.", ""], "id": ["first", None, None], "seed": [7, None, None]}
    write = "p.write_table(a.table(json.loads(sys.argv[1])), sys.argv[2])"
    script = f"import json, sys, pyarrow as a, pyarrow.parquet as p; {write}"
    subprocess.run([program("python"), "-c", script, json.dumps(rows), texts], check=True)
    batch = Batch(home, texts, output)
    assert batch.wait() == 1, batch.log
    check_each_line_once(output, [1, 2])
    entries = {entry["line"]: entry for entry in manifest_of(output)}
    assert (entries[1]["file"], entries[1]["seed"], entries[2]["file"]) == ("first.wav", 7, "00002.wav")
    (failed,) = map(json.loads, (output / "failed.jsonl").open())
    assert failed["number"] == 3 and "input" in failed["reason"]


@pytest.mark.parametrize("option", [["--cpus", "0"], ["--workers", "-1"], ["--cpus", "two"]])
def test_a_number_that_makes_no_sense_is_told(option: list[str], tmp_path: Path) -> None:
    command = [program("python"), BATCH, "texts.txt", "-o", tmp_path, *option]
    told = subprocess.run(command, cwd=ROOT, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    assert told.returncode == 2
    assert "is not a number from 1 on" in told.stderr
