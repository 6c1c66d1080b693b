"""A server under load: `python -m benchmarks.load callers`, and so on with the other scenarios.

Real HTTP clients stream from `python -m server`, which is started on a free port with a full-size random int8 bundle
unless `--bundle` or `--url` says otherwise. Prints a table and writes a plot. `replicas` starts servers of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

import httpx

from benchmarks.clients import Ask, arrive, connect, take_turns, watching
from benchmarks.observed import Heard, Phase, Seen, table
from server.bench.report import machine
from server.bench.speak import RAMP_FRAMES, TEXT
from server.engine.tokenizer import TextTokenizer
from server.speech.reading import chunk_seed
from server.text.chunks import chunks

SENTENCES = (
    "Yes.",
    "The shop on the corner closes at six.",
    TEXT,
    "A long time ago there lived a fisherman and his wife, who had a very small house near the sea, and every day he "
    "went out to it in his boat, and every day he came back with nothing!",
    "Nobody asked, nobody spoke, and nobody at all wondered why the lights of the old house were still on at this time "
    "of the night, or who it was that walked up and down behind its many windows, again and again, until the morning "
    "came and the first cars went by on their way to the town.",
)
"""Texts of mixed length."""
FRAMES_A_CHARACTER = 12.5 / 15
"""Codec frames a second by characters spoken in a second, about."""
SEED = 1


@dataclass
class Load:
    """A server under load, and what has been seen of it.

    Attributes:
        http: whom requests are made through.
        options: of the command line.
        say: prints what is being done.
    """

    http: httpx.AsyncClient
    options: argparse.Namespace
    say: Callable[[str], object]
    seen: Seen = field(default_factory=Seen)
    phases: list[Phase] = field(default_factory=list)
    seeds: Iterator[int] = field(default_factory=lambda: count(SEED))

    def asks(self, number: int, frames: int | None = None) -> list[Ask]:
        """Make some requests of equal work."""
        return [Ask(TEXT, frames or self.options.frames, next(self.seeds)) for _ in range(number)]

    async def phase(self, name: str, work: Awaitable[list[Heard]]) -> Phase:
        """Do the work, and keep what its clients have heard."""
        self.say(name)
        began = time.perf_counter()
        heard = await work
        self.phases.append(Phase(name, began, time.perf_counter(), heard))
        return self.phases[-1]


async def callers(load: Load) -> list[str]:
    """1 caller and several callers in turns, each with the same work."""
    options, ratios = load.options, []
    for _ in range(options.rounds):
        one = await load.phase("1 caller", take_turns(load.http, 1, load.asks(options.requests)))
        asks = load.asks(options.callers * options.requests)
        several = await load.phase(f"{options.callers} callers", take_turns(load.http, options.callers, asks))
        ratios.append(several.throughput / one.throughput)
    return [f"Throughput with {options.callers} callers / with 1: {_rounds(ratios)}; target 2.2."]


async def long(load: Load) -> list[str]:
    """A long text as one request, and its chunks requested one after another, in turns."""
    options, ratios = load.options, []
    text = (" ".join(SENTENCES) + " ") * (options.characters // len(" ".join(SENTENCES)) + 1)
    text = text[: options.characters].rstrip()
    tokenizer = TextTokenizer(options.bundle / "tokenizer.json")
    parts = list(chunks(text, "en", tokenizer.count))
    for _ in range(options.rounds):
        seed = next(load.seeds)
        whole = Ask(text, None, seed)
        single = [Ask(part.text, None, chunk_seed(seed, number)) for number, part in enumerate(parts)]
        one = await load.phase("one request", take_turns(load.http, 1, [whole]))
        several = await load.phase("its chunks one after another", take_turns(load.http, 1, single))
        ratios.append(several.wall / one.wall)
    about = f"{len(text)} characters, {len(parts)} chunks of {', '.join(str(part.tokens) for part in parts)} tokens"
    return [f"{about}: as one request so many times faster: {_rounds(ratios)}; target 1.8."]


def _rounds(ratios: list[float]) -> str:
    return f"{median(ratios):.2f} (median of {', '.join(f'{ratio:.2f}' for ratio in ratios)})"


async def livez(load: Load) -> list[str]:
    """`/livez` while every row runs."""
    options = load.options
    asks = load.asks(options.callers * options.requests)
    await load.phase(f"{options.callers} callers", take_turns(load.http, options.callers, asks))
    return []


async def leavers(load: Load) -> list[str]:
    """Many short requests, a third of whose clients leave: without waiting, at the first audio, or half-way."""
    options, draw = load.options, random.Random(SEED)
    asks = [
        Ask(draw.choice(SENTENCES), options.frames, next(load.seeds), leave=leave)
        for number in range(options.requests)
        for leave in [draw.choice((0, 1, options.frames // 2)) if number % 3 == 0 else None]
    ]
    name = f"{options.requests} requests, {options.callers} callers"
    await load.phase(name, take_turns(load.http, options.callers, asks))
    return []


async def burst(load: Load) -> list[str]:
    """More requests at once than the server has rows and places in its queue."""
    options = load.options
    phase = await load.phase(f"burst of {options.requests}", arrive(load.http, 0, load.asks(options.requests)))
    refused = sum(one.status == 429 for one in phase.heard)
    whole = sum(one.outcome == "whole" for one in phase.heard)
    expected = max(0, options.requests - options.rows - options.queue)
    return [
        f"429: {refused} (expected {expected}: {options.requests} less {options.rows} rows and {options.queue} "
        f"places); whole: {whole} of {len(phase.heard) - refused} accepted."
    ]


async def steady(load: Load) -> list[str]:
    """Texts of mixed length, one every `--interval` seconds; a quarter read slowly, an eighth leave."""
    options, draw = load.options, random.Random(SEED)
    asks = []
    for number in range(options.requests):
        text = draw.choice(SENTENCES)
        frames = max(4, round(FRAMES_A_CHARACTER * len(text)))
        leave = frames // 2 if number % 8 == 3 else None
        asks.append(Ask(text, frames, next(load.seeds), leave, pace=0.8 if number % 4 == 1 else None))
    await load.phase(f"1 every {options.interval:g} s", arrive(load.http, options.interval, asks))
    return []


@dataclass(frozen=True)
class Scenario:
    """A sub-command: what it runs, and its own options with their defaults."""

    run: Callable[[Load], Awaitable[list[str]]]
    defaults: dict[str, int]


SCENARIOS = {
    "callers": Scenario(callers, {"callers": 8, "frames": 50, "requests": 2, "rounds": 4}),
    "long": Scenario(long, {"characters": 2000, "frames": 100, "rounds": 2}),
    "livez": Scenario(livez, {"callers": 8, "frames": 100, "requests": 2}),
    "leavers": Scenario(leavers, {"callers": 8, "frames": 8, "requests": 500}),
    "burst": Scenario(burst, {"frames": 25, "requests": 32}),
    "steady": Scenario(steady, {"interval": 8, "requests": 24}),
}
_HELP = {
    "callers": "how many at once",
    "characters": "of the text",
    "frames": "codec frames of a request; of a long text's chunk where the bundle makes noise, else the model ends it",
    "interval": "seconds from one request to the next",
    "requests": "how many in all; of each caller in `callers` and `livez`",
    "rounds": "how often",
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="scenario", required=True)
    for name, scenario in SCENARIOS.items():
        about = str(scenario.run.__doc__).splitlines()[0]
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("--bundle", type=Path, help="folder of a bundle (default: a random one of full size)")
        command.add_argument("--url", help="of a server that runs already; --rows and --queue say what it has")
        command.add_argument("--key", default=os.environ.get("KW_SECRET_API_KEY"), help="of that server")
        command.add_argument("--rows", type=int, default=8, help="KW_MAX_ROWS (default: %(default)s)")
        command.add_argument("--queue", type=int, default=16, help="KW_MAX_QUEUE (default: %(default)s)")
        command.add_argument("--threads", type=int, default=2, help="KW_THREADS (default: %(default)s)")
        command.add_argument("--plot", type=Path, default=Path(f".cache/benchmarks/load-{name}.png"), help="PNG file")
        for option, default in scenario.defaults.items():
            command.add_argument(f"--{option}", type=int, default=default, help=f"{_HELP[option]} (default: {default})")
    about = "One server, several behind nginx, and with --ray several on Ray Serve, in turns; on the embedded model."
    command = commands.add_parser("replicas", help=about, description=about)
    command.add_argument("--replicas", type=int, nargs="+", default=[1, 2], help="how many (default: 1 2)")
    command.add_argument("--ray", action="store_true", help="also on Ray Serve, which `make test-ray` installs")
    command.add_argument("--callers", type=int, help="at once (default: as many as all replicas have rows)")
    for option, default in (("frames", 50), ("requests", 10), ("rounds", 3)):
        command.add_argument(f"--{option}", type=int, default=default, help=f"{_HELP[option]} (default: {default})")
    return parser.parse_args(arguments)


@contextmanager
def running_server(options: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    """Yield URL and key of the server to be used; a server that is started here is ended afterwards."""
    if options.url:
        yield options.url, options.key
        return
    from tests.server.running import KEY, REAL, run_server

    with tempfile.TemporaryDirectory() as scratch:
        bundle = options.bundle
        if options.scenario == "long":
            bundle = ending(bundle, options.frames, Path(scratch))
        settings = {"MODELS_DIR": bundle.parent, "MODEL": bundle.name, "THREADS": options.threads}
        settings |= {"MAX_ROWS": options.rows, "MAX_QUEUE": options.queue}
        variables = {f"KW_{name}": str(value) for name, value in settings.items()}
        with run_server(REAL, Path(scratch), **variables) as server:
            server.wait_ready()
            yield server.url, KEY


def ending(bundle: Path, frames: int, scratch: Path) -> Path:
    """Return the bundle, or, if it makes noise and so never ends by itself, a copy that ends after so many frames."""
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    if not manifest.get("noise"):
        return bundle
    folder = shutil.copytree(bundle, scratch / bundle.name)  # ONNX Runtime does not follow links to weights
    manifest["generation"]["max_new_tokens"] = frames
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


async def run(options: argparse.Namespace, url: str, key: str | None) -> tuple[Load, list[str]]:
    """Warm the server up, then run the scenario while it is watched."""
    async with connect(url, key) as http:
        load = Load(http, options, lambda doing: print(doing, file=sys.stderr))
        load.say("warming up")
        for number in (1, options.rows):
            await take_turns(http, number, load.asks(number, RAMP_FRAMES))
        with watching(url, key, load.seen):
            findings = await SCENARIOS[options.scenario].run(load)
    return load, findings


def main(arguments: list[str] | None = None) -> None:
    """Run a scenario, print its table, write its plot."""
    options = parse(arguments)
    if options.scenario == "replicas":
        from benchmarks import scaled  # needs nginx

        scaled.main(options)
        return
    if options.bundle is None and (options.url is None or options.scenario == "long"):
        from benchmarks.checkpoints import full_size_bundle  # needs what the tests need

        options.bundle = full_size_bundle("0.6b", "int8")
    with running_server(options) as (url, key):
        load, findings = asyncio.run(run(options, url, key))
    name = options.url or options.bundle.name
    title = f"{options.scenario}: {name}, {options.rows} rows, {options.threads} threads; {machine()}"
    problems = sorted({f"failed: {one.problem}" for phase in load.phases for one in phase.heard if one.problem})
    print("\n".join([title, "", table(load.phases, load.seen), "", *findings, *problems]))

    from benchmarks.plots import plot

    plot(load.phases, load.seen, title, options.plot)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a server that was started here ends too
    main()
