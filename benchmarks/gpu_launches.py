"""What a GPU does in a frame: its kernels by name, how often each is launched and how long it takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

from torch.profiler import ProfilerActivity, profile

from server.bench.speak import TEXT
from server.engine.bundle import OpenBundle
from server.engine.job import Job, Sampling
from server.engine.synthesizer import Synthesizer

FRAMES = 16
SHOWN = 40


def launches(bundle: OpenBundle) -> Iterator[tuple[str, str]]:
    """Speak with one row and yield, for a frame, how many kernels ran and which took the time.

    CUDA's profiling interface reports the kernels of the whole process, also those of replayed CUDA graphs.
    """
    synthesizer, sampling = Synthesizer(bundle), Sampling.of(bundle.manifest.generation)
    speaker = next(iter(bundle.manifest.speakers), None)
    prompt = bundle.prompts.build(TEXT, speaker=speaker, language="auto", instruction=None)
    row = synthesizer.start(Job(prompt, sampling, 0, 6 * FRAMES, 7 * FRAMES), 0)
    for _ in range(2 * FRAMES):
        synthesizer.frame([row])
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        start = time.perf_counter()
        for _ in range(FRAMES):
            synthesizer.frame([row])
        wall = time.perf_counter() - start
    times: dict[str, list[float]] = defaultdict(list)
    for event in profiled.events():
        times[event.name].append(event.device_time_total)  # microseconds
    total = sum(map(sum, times.values())) / FRAMES
    yield "kernels and copies a frame", f"{sum(map(len, times.values())) / FRAMES:.0f}"
    yield "time that they take a frame, profiled", f"{total / 1e3:.2f} ms of {1e3 * wall / FRAMES:.2f} ms"
    for name, each in sorted(times.items(), key=lambda pair: -sum(pair[1]))[:SHOWN]:
        share = f"{len(each) / FRAMES:.1f} a frame, {sum(each) / FRAMES:.0f} us"
        yield name[:140].replace("|", "/"), share
