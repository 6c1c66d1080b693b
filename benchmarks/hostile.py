"""What one caller can cost: `python -m benchmarks.hostile`.

Attacks two servers, one with a key and one without, by real connections, while somebody listens to a stream and a
process of its own asks for `/livez`. Prints what each attack got and what it cost. The bundle is the embedded model
unless `--bundle` says otherwise. Linux only, since peak memory is read from `/proc`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.attacks import ATTACKS, PARAGRAPH, Attack, Target, ask
from benchmarks.clients import Ask, connect, take_turns, watching
from benchmarks.load import ending
from benchmarks.observed import Seen, longest_gap, percentile, underruns
from server.audio.formats import FORMATS
from server.bench.report import machine
from server.bench.speak import TEXT
from server.metrics import PREFIX
from server.models.memory import TRIM_DELAY_SECONDS

EMBEDDED = Path(__file__).resolve().parent.parent / "models" / "qwen3_tts_tiny"
PLACES = 110
"""Requests that the key may have under way: no attack wants more, and all together far more, so that lost ones show."""
SETTLE_SECONDS = 60.0
HEAD_START_SECONDS = 1.0
"""Seconds for which the listener is heard before an attack begins."""
TIDIED_SECONDS = TRIM_DELAY_SECONDS + 1.5
"""Seconds after which the server has given back the memory that a request took."""
LEAST_SECONDS = 4.0
"""Seconds for which a short attack is repeated, so that there are enough probes for a percentile."""
QUIET_SECONDS = 10.0
"""Seconds for which nobody attacks, before and after the attacks of a round."""
MEGABYTE = 1_000_000
ATTACKERS_NICE = 10
"""By how much the attackers' priority is below that of server, probe and listener."""
WARM_FRAMES = 100
NOISE_FRAMES = 8
"""Codec frames of a chunk where the bundle makes noise, and so ends none by itself: few, as such a bundle is large."""
NOISE_TEXT = (TEXT + " ") * 4
"""What the listener of such a bundle asks for; each attack lasts until the listener has heard all of it."""
BUFFER_SECONDS = 0.2
"""Seconds of audio that a player keeps before it plays, which hides gaps of that length in all."""
MOST_MEGABYTES, MOST_P99, MOST_WORST, MOST_LEFT = 64, 20, 100, 0.05
"""Wanted: MB above idle, `/livez` in ms, and the share of memory that may be left over."""


class Held(NamedTuple):
    """Resident memory, in bytes: that of the process itself, and pages of files, which the system may take back."""

    anonymous: int
    of_files: int

    @property
    def all(self) -> int:
        return self.anonymous + self.of_files

    def since(self, before: Held) -> Held:
        """How much more that is."""
        return Held(self.anonymous - before.anonymous, self.of_files - before.of_files)


NOTHING = Held(0, 0)


class Process:
    """Reads the memory and the open files of a server's process from /proc."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)

    def forget_peak(self) -> None:
        """Begin to measure the peak anew (man 5 proc, clear_refs)."""
        (self._folder / "clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))

    @property
    def held(self) -> Held:
        """The resident memory."""
        return Held(self._status("RssAnon"), self._status("RssFile") + self._status("RssShmem"))

    @property
    def peak(self) -> int:
        """The most resident memory in bytes since the peak was reset."""
        return self._status("VmHWM")

    @property
    def descriptors(self) -> int:
        """The number of open files and connections."""
        return len(list((self._folder / "fd").iterdir()))


@dataclass
class Cost:
    """An attack and what came of it.

    Attributes:
        name: of the attack.
        got: what the attacker got.
        seconds: that it took.
        peak: bytes above what was resident before.
        left: what stayed resident, once the server had tidied up.
        seen: by listener and probe.
    """

    name: str
    got: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    peak: int = 0
    left: Held = NOTHING
    seen: Seen = field(default_factory=Seen)

    @property
    def faults(self) -> int:
        """Answers with a status of 500 or more, except 503, which asks the caller to wait."""
        return sum(number for what, number in self.got.items() if what[:1] == "5" and what != "503")

    @property
    def livez(self) -> list[float]:
        """Milliseconds that each probe took."""
        return [1e3 * probe.seconds for probe in self.seen.probes]

    @property
    def starved(self) -> tuple[int, float]:
        """How often and for how many seconds in all the listener, who plays at the speed of speech, had nothing."""
        each = [underruns(one.parts) for one in self.seen.heard]
        return sum(one.times for one in each), sum(one.seconds for one in each)

    def cells(self) -> Iterator[str]:
        """The cells of its line in the table."""
        yield self.name
        yield ", ".join(f"{number} x {what}" for what, number in sorted(self.got.items())) or "-"
        yield f"{self.seconds:.1f}"
        yield f"{self.peak / MEGABYTE:.0f}"
        yield " / ".join(f"{held / MEGABYTE:+.1f}" for held in self.left)
        yield spread(self.livez)
        heard = Counter(one.outcome for one in self.seen.heard)
        gap = max((longest_gap(one.parts) for one in self.seen.heard), default=0.0)
        times, seconds = self.starved
        refused = "".join(f", {heard[name]} {name}" for name in ("refused", "failed") if heard[name])
        yield f"{gap:.2f} s; {times} underruns, {seconds:.1f} s; {heard['whole']} whole{refused}"


def spread(milliseconds: Sequence[float]) -> str:
    """Median, 99th percentile, greatest and number."""
    p50, p99 = (percentile(milliseconds, share) for share in (50, 99))
    return f"{p50:.1f} / {p99:.1f} / {max(milliseconds):.1f} ({len(milliseconds)})"


HEAD = (
    "attack", "what the attacker got", "s", "peak RSS above before, MB",
    "RSS left, MB: anonymous / of files",
    "`/livez` p50 / p99 / worst, ms (probes)", "listener: longest gap; underruns at 1 x; requests",
)  # fmt: skip


@dataclass
class Siege:
    """The servers, and how they are measured.

    Attributes:
        target: what is attacked.
        process: of the server that wants a key.
        listener: what somebody listens to meanwhile.
        warm_frames: codec frames of each request before the attacks.
    """

    target: Target
    process: Process
    listener: Ask
    warm_frames: int

    async def work(self, name: str, attack: Attack) -> Cost:
        """Attack, and wait until none of its requests is under way any more."""
        cost = Cost(name)
        before = self.process.held
        self.process.forget_peak()
        with watching(self.target.url, self.target.key, cost.seen, self.listener):
            await asyncio.sleep(HEAD_START_SECONDS)
            began = time.perf_counter()
            while cost.seconds < LEAST_SECONDS:
                cost.got.update(await asyncio.to_thread(_attacked, attack, self.target))
                cost.seconds = time.perf_counter() - began
        cost.peak = self.process.peak - before.all
        await self.settled()
        cost.left = self.process.held.since(before)
        return cost

    async def settled(self) -> None:
        """Wait until no row runs and no job waits.

        Raises:
            TimeoutError: something is still held; the message says what.
        """
        deadline = time.monotonic() + SETTLE_SECONDS
        async with connect(self.target.url, self.target.key) as http:
            while any(held := await under_way(http)):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{held} rows and jobs are held {SETTLE_SECONDS:g} s after an attack")
                await asyncio.sleep(0.2)
        await asyncio.sleep(TIDIED_SECONDS)


def _attacked(attack: Attack, target: Target) -> Iterable[str]:
    """Attack from a thread of lower priority than server, probe and listener: a stranger has a machine of its own."""
    ours = os.getpriority(os.PRIO_PROCESS, os.getpid())
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), ours + ATTACKERS_NICE)
    return asyncio.run(attack(target))


async def under_way(http: httpx.AsyncClient) -> tuple[int, int]:
    """Read the number of rows that run and of jobs that wait, of all models."""
    text = (await http.get("/metrics")).raise_for_status().text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    running, waiting = (
        sum(int(sample.value) for sample in families[f"{PREFIX}_{name}"].samples)
        for name in ("rows_running", "queue_depth")
    )
    return running, waiting


async def nothing(target: Target) -> Iterable[str]:
    """no attack"""
    await asyncio.sleep(QUIET_SECONDS)
    return []


async def nothing_more(target: Target) -> Iterable[str]:
    """no attack, after all of them"""
    return await nothing(target)


async def ordinary(target: Target) -> Iterable[str]:
    """eight ordinary callers"""
    async with target.client() as http:
        heard = await take_turns(http, 8, [Ask(TEXT, 25, seed) for seed in range(8)])
    return [str(one.status) for one in heard]


async def run(
    siege: Siege, attacks: Sequence[Attack], rows: int, rounds: int, say: Callable[[str], object]
) -> list[str]:
    """Run every attack in turn, in so many rounds, and return the lines of the report."""
    target, process = siege.target, siege.process
    async with connect(target.url, target.key) as http:
        for number in (1, rows, rows):
            asks = [Ask(siege.listener.text, siege.warm_frames, seed) for seed in range(number)]
            await take_turns(http, number, asks)
    async with target.client() as http:  # what is loaded with the first use of a format, and of a form of text
        for audio_format in FORMATS:
            await ask(http, "**Yes**, [1s] on 2025-03-01.", response_format=audio_format)
    await siege.settled()
    before, descriptors = process.held, process.descriptors
    costs, after = [], []
    for number in range(rounds):
        for attack in (nothing, ordinary, *attacks, nothing_more):
            name = str(attack.__doc__).strip() + (f", round {number + 1}" if number else "")
            say(name)
            costs.append(await siege.work(name, attack))
            say(" | ".join(costs[-1].cells()))
        after.append(process.held)
        say(f"memory after round {number + 1}: {told(after[-1], before)}")
    async with connect(target.url, target.key) as http:
        afterwards = await take_turns(http, rows, [Ask(TEXT, 25, seed) for seed in range(rows)])
    whole = sum(one.outcome == "whole" for one in afterwards)
    together = [probe for cost in costs if not cost.name.startswith("no attack") for probe in cost.livez]
    table = [HEAD, ["---"] * len(HEAD), *(list(cost.cells()) for cost in costs)]
    return [
        *(f"| {' | '.join(row)} |" for row in table),
        "",
        f"Before the attacks {before.anonymous / MEGABYTE:.0f} MB and {before.of_files / MEGABYTE:.0f} MB of files, "
        f"{descriptors} descriptors; after each round {', '.join(told(held, before) for held in after)}, and "
        f"{process.descriptors} descriptors; "
        f"of {rows} callers at once, as many as there are rows, {whole} were served.",
        "",
        f"`/livez` during all attacks together, p50 / p99 / worst, ms (probes): {spread(together)}.",
        "",
        *missed(costs, after[-1].all / before.all - 1),
    ]


def told(held: Held, before: Held) -> str:
    """How much more memory is held than before: in all, and of which kind."""
    more = held.since(before)
    kinds = f"{more.anonymous / MEGABYTE:+.1f} MB, {more.of_files / MEGABYTE:+.1f} MB of files"
    return f"{more.all / before.all:+.1%} ({kinds})"


def missed(costs: list[Cost], held: float) -> Iterator[str]:
    """Yield what exceeds the limits, which hold for the embedded model on two cores."""
    found = []
    for cost in costs:
        if cost.peak > MOST_MEGABYTES * MEGABYTE:
            found.append(f"{cost.name}: {cost.peak / MEGABYTE:.0f} MB, at most {MOST_MEGABYTES} wanted")
        if cost.faults:
            found.append(f"{cost.name}: {cost.faults} answers of 5xx")
        if percentile(cost.livez, 99) > MOST_P99 or max(cost.livez) > MOST_WORST:
            found.append(f"{cost.name}: /livez slower than {MOST_P99} ms (p99) or {MOST_WORST} ms (worst)")
        if cost.starved[1] > BUFFER_SECONDS or any(one.outcome == "failed" for one in cost.seen.heard):
            found.append(f"{cost.name}: the listener starved")
    if held > MOST_LEFT:
        found.append(f"memory afterwards: {held:+.1%}, at most {MOST_LEFT:+.0%} wanted")
    yield "Wanted, and missed:" if found else "All as wanted."
    yield from (f"- {line}" for line in found)


@contextmanager
def besieged(options: argparse.Namespace) -> Iterator[Siege]:
    """Start both servers, and end them afterwards."""
    from tests.server.running import KEY, REAL, run_server

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        given = options.bundle.resolve()
        bundle = ending(given, NOISE_FRAMES, scratch)
        variables = {
            "KW_MODELS_DIR": str(bundle.parent),
            "KW_MODEL": bundle.name,
            "KW_MAX_ROWS": str(options.rows),
            "KW_THREADS": str(options.threads),
            "KW_REQUEST_TIMEOUT": str(options.timeout),
            "KW_MAX_REQUESTS_PER_KEY": str(PLACES),
        }
        (keys := scratch / "keys").touch()
        with (
            run_server(REAL, scratch, **variables, KW_API_KEYS_FILE=str(keys)) as server,
            run_server(REAL, scratch, **variables, KW_SECRET_API_KEY="", KW_HOST="") as open_server,
        ):
            server.wait_ready()
            open_server.wait_ready()
            target = Target(server.url, KEY, open_server.url, keys, options.seconds)
            text, frames = (PARAGRAPH, WARM_FRAMES) if bundle == given else (NOISE_TEXT, NOISE_FRAMES)
            yield Siege(target, Process(server.process.pid), Ask(text, options.frames, 1), frames)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=EMBEDDED, help="folder of a bundle (default: the embedded one)")
    parser.add_argument("--full-size", action="store_true", help="the random int8 bundle of full size instead")
    parser.add_argument("--rows", type=int, default=4, help="KW_MAX_ROWS (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="KW_THREADS (default: %(default)s)")
    parser.add_argument("--timeout", type=int, default=10, help="KW_REQUEST_TIMEOUT (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=12, help="that an endless attack lasts (default: %(default)s)")
    parser.add_argument("--frames", type=int, help="that the listener asks for (default: what the model makes)")
    parser.add_argument(
        "--rounds", type=int, default=1, help="of all attacks: whether memory grows again shows in the second"
    )
    names = [attack.__name__ for attack in ATTACKS]
    parser.add_argument("--only", nargs="+", metavar="ATTACK", choices=names, help="some of: %(choices)s")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Attack and report."""
    options = parse(arguments)
    if options.full_size:
        from benchmarks.checkpoints import full_size_bundle  # needs what the tests need

        options.bundle = full_size_bundle("0.6b", "int8")
    attacks = [attack for attack in ATTACKS if not options.only or attack.__name__ in options.only]
    with besieged(options) as siege:
        lines = asyncio.run(
            run(siege, attacks, options.rows, options.rounds, lambda doing: print(doing, file=sys.stderr))
        )
    title = f"hostile: {options.bundle.name}, {options.rows} rows, {options.threads} threads; {machine()}"
    print("\n".join([title, "", *lines]))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end too
    main()
