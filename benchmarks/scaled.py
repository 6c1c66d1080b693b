"""The scenario `replicas` of `benchmarks.load`: what more replicas give, and what the proxy before them costs.

The embedded model, one thread a replica: one server without a proxy, then so many behind nginx, and as many on Ray
Serve, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

import psutil

from benchmarks.clients import Ask, connect, take_turns
from benchmarks.observed import Phase, percentile
from benchmarks.replicas import ROWS, TEXT, Replica, free_ports, running_nginx
from server.bench.report import machine
from tests.server.running import KEY

HEAD = (
    "| way | whole / other | TTFA of one caller, p50 / p95, ms | audio seconds a wall second, {callers} callers | "
    "their TTFA, p50, ms | proxy's processor time for a second of audio, ms |\n|---|---|---|---|---|---|"
)


@dataclass
class Way:
    """A way to the servers, and what was seen of it, a phase a round.

    Attributes:
        name: of it.
        url: that is asked.
        prepare: makes it ready before each round.
        proxy: processor time in seconds that its proxy has taken so far.
        proxied: the same for the time in which all callers asked.
    """

    name: str
    url: str
    prepare: Callable[[], object] = lambda: None
    proxy: Callable[[], float] = lambda: 0.0
    proxied: float = 0.0
    alone: list[Phase] = field(default_factory=list)
    together: list[Phase] = field(default_factory=list)


def ways(options: argparse.Namespace, scratch: Path, ending: ExitStack) -> Iterator[Way]:
    """Start what the ways lead to; it ends with `ending`."""
    ports = free_ports(max(options.replicas))
    for port in ports:
        replica = Replica(port, scratch / str(port))
        ending.callback(replica.close)
        replica.start()
    yield Way("1 server, no proxy", f"http://127.0.0.1:{ports[0]}")
    for number in options.replicas:
        (port,) = free_ports(1)
        folder = scratch / f"nginx-{number}"
        folder.mkdir(mode=0o755)
        nginx = psutil.Process(ending.enter_context(running_nginx(folder, port, ports[:number])))
        yield Way(f"nginx, {number}", f"http://127.0.0.1:{port}", proxy=partial(_cpu_of_children, nginx))
    if not options.ray:
        return
    from tests.ray.cluster import running_ray

    ray = ending.enter_context(running_ray(max(options.replicas) + 1))
    for number in options.replicas:

        def scale(number: int = number) -> None:
            ray.deploy(replicas=number)
            ray.wait_running(number)

        yield Way(f"Ray Serve, {number}", ray.url, scale, partial(_cpu_of_children, ray.process, "ProxyActor"))


def _cpu_of_children(parent: psutil.Process, name: str = "") -> float:
    """Processor time in seconds that the processes below one have taken which have a name in their command line."""
    family = [each for each in parent.children(recursive=True) if name in " ".join(each.cmdline())]
    return sum(sum(each.cpu_times()[:2]) for each in family)


async def measure(way: Way, options: argparse.Namespace, seeds: Iterator[int]) -> None:
    """One round: one caller, then all of them."""

    def asks(number: int) -> list[Ask]:
        return [Ask(TEXT, options.frames, next(seeds)) for _ in range(number)]

    callers, loop = options.callers, asyncio.get_running_loop()
    async with connect(way.url, KEY) as http:
        await take_turns(http, callers, asks(2 * callers))
        for phases, number, requests in ((way.alone, 1, options.requests), (way.together, callers, 2 * callers)):
            before, began = way.proxy(), loop.time()
            heard = await take_turns(http, number, asks(requests))
            phases.append(Phase(way.name, began, loop.time(), heard))
        way.proxied += way.proxy() - before


def row(way: Way) -> str:
    """Format a row of the table."""
    heard = [one for phase in (*way.alone, *way.together) for one in phase.heard]
    whole = sum(one.outcome == "whole" for one in heard)
    alone, together = _ttfa(way.alone), _ttfa(way.together)
    audio = sum(one.audio for phase in way.together for one in phase.heard)
    cells = [
        way.name,
        f"{whole} / {len(heard) - whole}",
        f"{percentile(alone, 50):.0f} / {percentile(alone, 95):.0f}",
        f"{audio / sum(phase.wall for phase in way.together):.2f}",
        f"{percentile(together, 50):.0f}",
        f"{1e3 * way.proxied / audio:.1f}" if way.proxied else "-",
    ]
    return f"| {' | '.join(cells)} |"


def _ttfa(phases: Sequence[Phase]) -> list[float]:
    return [1e3 * one.ttfa for phase in phases for one in phase.heard if one.ttfa is not None]


def findings(found: Sequence[Way], replicas: Sequence[int]) -> Iterator[str]:
    """Compare the ways, each round with itself."""
    first, *behind = found
    for way in behind:
        pairs = list(zip(way.alone, first.alone, strict=True))
        costs = [percentile(_ttfa([one]), 50) - percentile(_ttfa([other]), 50) for one, other in pairs]
        yield f"{way.name}: TTFA of one caller above that without a proxy, by round: {_all(costs, 1)} ms."
    for engine in (behind[: len(replicas)], behind[len(replicas) :]):
        for way in engine[1:]:
            pairs = list(zip(way.together, engine[0].together, strict=True))
            gains = [one.throughput / other.throughput for one, other in pairs]
            yield f"{way.name}: throughput against that of {engine[0].name}, by round: {_all(gains, 2)}."


def _all(values: Sequence[float], digits: int) -> str:
    return f"{median(values):.{digits}f} (median of {', '.join(f'{value:.{digits}f}' for value in values)})"


def main(options: argparse.Namespace) -> None:
    """Measure all ways in turns, and print a table."""
    options.callers = options.callers or ROWS * max(options.replicas)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as ending:
        Path(scratch).chmod(0o755)  # nginx' workers have a user of their own
        found = list(ways(options, Path(scratch), ending))
        seeds = count(1)
        for _ in range(options.rounds):
            for way in found:
                way.prepare()
                asyncio.run(measure(way, options, seeds))
    rows = [HEAD.format(callers=options.callers), *map(row, found)]
    title = f"replicas of the embedded model, {ROWS} rows and 1 thread each, {options.frames} frames a request"
    print("\n".join([f"{title}; {machine()}", "", *rows, "", *findings(found, options.replicas)]))
