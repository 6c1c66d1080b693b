"""How fast a bundle is on this machine: requests of one row and of several, and probes of the floor, taking turns.

Taking turns, since machines are noisy: figures of one measurement may be compared, those of two hardly.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from server.bench.floor import FloorProbe, frame_reads
from server.bench.speak import Run, Stopwatch, speak, timed_bundle
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.graphs.cores import thread_count
from server.graphs.session import Provider
from server.manifest import Manifest


class Rss(NamedTuple):
    """Bytes of memory that this process holds now, and has held at most."""

    now: int
    peak: int


@dataclass(frozen=True)
class Memory:
    """RSS: bundle opened, one row has spoken, all rows have spoken that were asked for."""

    opened: Rss
    one_row: Rss
    all_rows: Rss


@dataclass(frozen=True)
class Floor:
    """Bytes that a frame must read, and the median seconds that merely reading them took."""

    bytes_read: int
    seconds: float


@dataclass(frozen=True)
class Measured:
    """What `measure` found; seconds are wall clock.

    Attributes:
        manifest: the bundle's.
        provider: the execution provider in use.
        threads: of the CPU kernels.
        opening: seconds that opening the bundle took.
        memory: of this process, or None where the operating system does not say.
        seconds: of every graph call in `runs`, by name: talker, code predictor, codec decoder.
        runs: requests of one row, by a voice used before.
        strange: the first frame of as many requests by a voice not used before.
        together: rows side by side, and one run for each of `runs`.
        floor: of talker and code predictor, or None where it is not known.
    """

    manifest: Manifest
    provider: str
    threads: int
    opening: float
    memory: Memory | None
    seconds: dict[str, list[float]]
    runs: list[Run]
    strange: list[Run]
    together: dict[int, list[Run]]
    floor: Floor | None


def rss() -> Rss | None:
    """Memory of this process, or None on Windows, which does not say how much it was at most."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Rss(psutil.Process().memory_info().rss, peak)


def measure(
    folder: Path,
    *,
    provider: Provider,
    threads: int,
    frames: int,
    requests: int,
    rows: Sequence[int] = (),
    progress: Callable[[str], object] = lambda doing: None,
) -> Measured:
    """Measure a bundle.

    Args:
        folder: `models/<model id>`.
        provider: execution provider, or `auto`.
        threads: of the CPU kernels; 0 is one for each core that this process may use.
        frames: codec frames of a request, at most.
        requests: how many of each number of rows, after one that warms up.
        rows: numbers of rows to be measured besides one.
        progress: hears what is being done.

    Raises:
        BundleError: the bundle is damaged or of another format.
        ProviderError: the provider is not to be had here.
    """
    progress("opening the bundle")
    threads = thread_count(threads)
    start = time.perf_counter()
    bundle = open_bundle(folder, provider=provider, threads=threads, slots=max([1, *rows]))
    opening = time.perf_counter() - start
    held = [rss()]
    watch = Stopwatch()
    timed = timed_bundle(bundle, watch)
    alone, side_by_side = Synthesizer(timed), Synthesizer(bundle)
    for synthesizer, count in (
        (alone, [1]),
        (side_by_side, rows),
    ):  # warms caches and arenas, all that requests take
        for number in count:
            progress(f"warming up, rows: {number}")
            speak(bundle, synthesizer, frames, 0, rows=number)
        held.append(rss())
    known = [one for one in held if one is not None]
    watch.seconds.clear()

    reads = frame_reads(bundle.manifest) if bundle.provider == "cpu" else None
    probe = FloorProbe(reads, threads) if reads else None  # after the memory has been noted
    between = probe.run if probe else lambda: None
    runs: list[Run] = []
    strange: list[Run] = []
    together: dict[int, list[Run]] = {number: [] for number in rows}
    for seed in range(1, requests + 1):
        progress(f"request {seed} of {requests}")
        strange.append(speak(bundle, Synthesizer(bundle), 1, seed))
        runs.append(speak(bundle, alone, frames, seed, between=between))
        for number, several in together.items():
            progress(f"request {seed} of {requests}, rows: {number}")
            several.append(speak(bundle, side_by_side, frames, seed, rows=number, between=between))
    return Measured(
        manifest=bundle.manifest,
        provider=bundle.provider,
        threads=threads,
        opening=opening,
        memory=Memory(*known) if known else None,
        seconds=watch.seconds,
        runs=runs,
        strange=strange,
        together=together,
        floor=Floor(probe.bytes_read, statistics.median(probe.seconds)) if probe else None,
    )
