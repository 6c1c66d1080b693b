"""Measures how fast a bundle speaks on this machine, and how much memory it takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from server.bench.speak import TEXT, Run, speak, text_of
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.graphs.cores import thread_count
from server.graphs.session import Provider
from server.manifest import Manifest


class Rss(NamedTuple):
    """Resident memory of this process in bytes, now and at most so far."""

    now: int
    peak: int


@dataclass(frozen=True)
class Measured:
    """What `measure` found.

    Attributes:
        manifest: the bundle's manifest.
        provider: the execution provider that computed.
        threads: number of threads of the CPU kernels.
        tokens: of the text of a request.
        opening: seconds that opening the bundle took.
        opened: memory once the bundle was open; None where the operating system does not tell.
        spoken: memory after a first request; None likewise.
        runs: requests of one row whose voice had been used before.
        new_voice: first frames of as many requests whose voice had not been used before.
    """

    manifest: Manifest
    provider: str
    threads: int
    tokens: int
    opening: float
    opened: Rss | None
    spoken: Rss | None
    runs: list[Run]
    new_voice: list[Run]

    @property
    def frames(self) -> int:
        """Codec frames of all runs together."""
        return sum(run.frames for run in self.runs)

    @property
    def rtf(self) -> float:
        """Real-time factor: wall seconds / audio seconds of all runs together; below 1 is faster than real time."""
        codec = self.manifest.sizes.codec
        return sum(run.wall for run in self.runs) / (self.frames * codec.samples_per_frame / codec.sample_rate)


def rss() -> Rss | None:
    """Read the memory of this process; None on Windows, which does not tell how much it was at most."""
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
    tokens: int | None = None,
    progress: Callable[[str], object] = lambda doing: None,
) -> Measured:
    """Measure a bundle.

    Args:
        folder: `models/<model id>`.
        provider: execution provider, or `auto`.
        threads: threads of the CPU kernels; 0 is one for each core that this process may use.
        frames: codec frames of a request at most.
        requests: how many requests are measured, after one that warms up.
        tokens: of the text of a request, or a few more; None is those of `TEXT`.
        progress: is told what is being done.

    Raises:
        BundleError: the bundle is damaged or of another format.
        ProviderError: the provider cannot be used here.
    """
    progress("opening the bundle")
    threads = thread_count(threads)
    start = time.perf_counter()
    bundle = open_bundle(folder, provider=provider, threads=threads, slots=1)
    opening = time.perf_counter() - start
    opened = rss()
    synthesizer = Synthesizer(bundle)
    progress("warming up")
    text = TEXT if tokens is None else text_of(bundle.prompts, tokens)
    speak(bundle, synthesizer, frames, 0, text=text)
    spoken = rss()
    runs: list[Run] = []
    new_voice: list[Run] = []
    for seed in range(1, requests + 1):
        progress(f"request {seed} of {requests}")
        new_voice.append(speak(bundle, Synthesizer(bundle), 1, seed, text=text))
        runs.append(speak(bundle, synthesizer, frames, seed, text=text))
    said = bundle.prompts.count_tokens(text)
    return Measured(bundle.manifest, bundle.provider, threads, said, opening, opened, spoken, runs, new_voice)
