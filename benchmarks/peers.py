"""This project against others in one run: `python -m benchmarks.peers --checkpoint FOLDER --bundle FOLDER ...`.

The bundles, the official package and the wheels of other projects that `make peers` has installed speak the same text
for the same number of codec frames, in turn, each in a process of its own. Machines are noisy: what counts is the ratio
within a round, and a round in which other processes took more than a tenth of the cores is refused. Made for random
checkpoints, which never end by themselves; Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rounds import MOST_OTHERS, Load, Turn, disturbed, others, table
from server.bench.report import machine
from server.bench.speak import text_of
from server.engine.bundle import open_prompts
from server.graphs.cores import thread_count
from server.manifest import read_manifest

ROOT = Path(__file__).resolve().parent.parent
SPEAKERS = Path(__file__).resolve().parent / "peer_speakers.py"
OWN = Path(sys.executable)
ENVIRONMENTS = ROOT / ".cache" / "peers"
"""One folder a wheel, with its environment and the weights that it wants."""
PEERS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("vox-tts, q8", "vox-tts", {"precision": "q8"}),
    ("vox-tts, q4", "vox-tts", {"precision": "q4"}),
    ("realtimetts-qwen-native-cpu", "realtimetts-qwen-native-cpu", {}),
    ("qwen3-tts-mnn", "qwen3-tts-mnn", {}),
)
"""What the table calls an engine, the wheel that it is, and what `peer_speakers.py` is told besides."""


class CannotSpeak(Exception):
    """An engine cannot be measured; the text says what is missing."""


class Engine:
    """An engine in a process of its own, which answers requests one after the other.

    Args:
        name: as the table names it.
        python: interpreter of its environment.
        how: what `peer_speakers.py` is told.

    Raises:
        CannotSpeak: it does not start.
    """

    def __init__(self, name: str, python: Path, how: dict[str, Any]) -> None:
        self.name = name
        own = ["-m", "benchmarks.peer_speakers"] if python == OWN else ["-P", str(SPEAKERS)]
        command = [str(python), *own, json.dumps(how)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._watched = psutil.Process(self._process.pid)
        try:
            self._answer()
        except CannotSpeak:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise CannotSpeak(f"{self.name}: its process ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise CannotSpeak(f"{self.name}: {answer['missing']}")
        return answer

    def speak(self, seed: int) -> Turn:
        """Have it speak once, and watch what else the machine does."""
        assert self._process.stdin
        before = Load.now(self._watched)
        self._process.stdin.write(f"{json.dumps({'seed': seed})}\n")
        self._process.stdin.flush()
        answer = self._answer()
        return Turn(answer["wall"], answer["first_audio"], answer["audio"], others(before, Load.now(self._watched)))

    @property
    def peak(self) -> int:
        """The most resident memory of its process so far, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def close(self) -> None:
        """End its process."""
        self._process.terminate()
        self._process.wait()


def engines(options: argparse.Namespace, text: str, threads: int, ending: ExitStack) -> Iterator[Engine]:
    """Start all that can be measured, ours first; says of the others what is missing. They end with `ending`."""
    how = {"text": text, "frames": options.frames, "threads": threads, "checkpoint": str(options.checkpoint)}
    wanted = [(f"ours, {folder.name}", OWN, {"engine": "ours", "bundle": str(folder)}) for folder in options.bundle]
    wanted.append(("official, fp32", OWN, {"engine": "official"}))
    for name, wheel, more in PEERS:
        wanted.append((name, ENVIRONMENTS / wheel / "bin" / "python", {"engine": wheel, **more}))
    for name, python, more in wanted:
        if options.only and not any(part in name for part in options.only):
            continue
        try:
            if not python.exists():
                raise CannotSpeak(f"{name}: not installed; `make peers` does it")
            engine = Engine(name, python, {**how, **more})
        except CannotSpeak as error:
            if more["engine"] == "ours":
                raise SystemExit(str(error)) from None
            print(f"Left out: {error}", flush=True)
            continue
        ending.callback(engine.close)
        yield engine


def run(options: argparse.Namespace) -> int:
    """Have the engines speak in turn and print what was found; gives the command's status."""
    threads = thread_count(options.threads)
    manifest = read_manifest(options.bundle[0])
    text = text_of(open_prompts(options.bundle[0], manifest), options.tokens)
    counted: list[dict[str, Turn]] = []
    with ExitStack() as ending:
        running = list(engines(options, text, threads, ending))
        if not running:
            print("No engine can be measured.")
            return 1
        print(f"{options.tokens} tokens, {options.frames} frames, {threads} threads; {machine()}", flush=True)
        for number in range(options.rounds + 1):
            turns = {engine.name: engine.speak(number) for engine in running}
            if number == 0:  # warms up
                continue
            share = disturbed(turns)
            if share is None:
                counted.append(turns)
            else:
                print(f"Round {number} does not count: other processes took {share:.0%} of the cores.", flush=True)
        peaks = {engine.name: engine.peak for engine in running}
    if counted:
        print("\n" + table(counted, running[0].name, peaks))
        return 0
    print(f"No figures: every engine has spoken, but no round was quiet (others at most {MOST_OTHERS:.0%}).")
    return 0 if options.allow_busy else 1


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="that the bundles were made of")
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="folder; may be given again")
    parser.add_argument("--frames", type=int, default=100, help="codec frames a request (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=60, help="of a request's text (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="that are tried, after a first one (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of each engine (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="engines whose names have one of these")
    parser.add_argument(
        "--allow-busy", action="store_true", help="end well without a quiet round: shows that all engines run"
    )
    sys.exit(run(parser.parse_args()))


if __name__ == "__main__":
    main()
