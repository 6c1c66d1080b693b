"""Where the time of one request goes: `python -m benchmarks.stages [--bundle FOLDER]`.

Without `--bundle` it makes a full-size random checkpoint and converts it (once, under `.cache/benchmarks`): speed does
not depend on the values of weights. One row, no server; frames and probes of the machine's read bandwidth take turns,
so that the ratio to the floor holds when the machine is noisy.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import onnxruntime

from benchmarks.floor import FloorProbe, weight_reads
from server.engine.bundle import OpenBundle, open_bundle
from server.engine.job import Job, PcmChunk, Sampling
from server.engine.synthesizer import CHUNK_RAMP, Synthesizer
from server.graphs.manifest import Precision

TEXT = "The early train was late again, so we shared a taxi and talked about the weather all the way."
STEADY_CHUNK = CHUNK_RAMP[-1]
"""Frames that the synthesizer decodes at a time once it is under way."""


class Stopwatch:
    """Wraps calls and keeps the seconds each took, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, timed under `name`."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds[name].append(time.perf_counter() - start)

        return timed


class _Timed:
    """Another object with some of its methods timed."""

    def __init__(self, inner: Any, watch: Stopwatch, **methods: str) -> None:
        self._inner = inner
        for method, name in methods.items():
            setattr(self, method, watch.wrap(name, getattr(inner, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@dataclasses.dataclass
class Run:
    """One request: seconds to the first audio and to the last, codec frames made, seconds of each of them."""

    first_audio: float
    wall: float
    frames: int
    frame_seconds: list[float]


class _StampedJob(Job):
    """A job that keeps when each chunk of audio came."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.stamps: list[float] = []

    def put(self, pcm: PcmChunk, frames: int) -> None:
        self.stamps.append(time.perf_counter())
        super().put(pcm, frames)


def timed_bundle(bundle: OpenBundle, watch: Stopwatch) -> OpenBundle:
    """The bundle with its graph calls timed."""
    timed: dict[str, Any] = {
        "talker": _Timed(bundle.talker, watch, prefill="prefill", decode="talker"),
        "code_predictor": _Timed(bundle.code_predictor, watch, run="code predictor"),
        "codec_decoder": _Timed(bundle.codec_decoder, watch, decode="codec decoder"),
    }
    return dataclasses.replace(bundle, **timed)


def request(bundle: OpenBundle, frames: int, seed: int, between: Callable[[], object]) -> Run:
    """Say `TEXT` for at most `frames` frames; `between` runs after every frame, off the clock."""
    defaults = bundle.manifest.generation
    sampling = Sampling(
        defaults.temperature,
        defaults.top_k,
        defaults.top_p,
        defaults.repetition_penalty,
        defaults.subtalker_temperature,
        defaults.subtalker_top_k,
        defaults.subtalker_top_p,
    )
    synthesizer = Synthesizer(bundle)
    speaker = next(iter(bundle.manifest.speakers), None)
    start = time.perf_counter()
    prompt = bundle.prompts.build(TEXT, speaker=speaker, language="auto", instruction=None)
    job = _StampedJob(prompt, sampling, seed, frames, capacity=frames + STEADY_CHUNK)
    row = synthesizer.start(job, 0)
    wall = time.perf_counter() - start
    first_audio, seconds = 0.0, []
    while not row.finished:
        start = time.perf_counter()
        synthesizer.frame([row])
        seconds.append(time.perf_counter() - start)
        first_audio = first_audio or wall + job.stamps[0] - start
        wall += seconds[-1]
        between()
    return Run(first_audio, wall, job.frames, seconds)


def measure(folder: Path, frames: int, requests: int, threads: int) -> str:
    """Run the benchmark and return its table."""
    start = time.perf_counter()
    bundle = open_bundle(folder, provider="cpu", threads=threads, slots=1)
    opened = time.perf_counter() - start
    sizes = bundle.manifest.sizes
    talker = weight_reads(folder / "talker.onnx")
    predictor = weight_reads(folder / "code_predictor.onnx", sizes.code_predictor.num_code_groups - 1)
    decoder = weight_reads(folder / "codec_decoder.onnx")
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    watch = Stopwatch()
    timed = timed_bundle(bundle, watch)
    request(bundle, min(frames, 8), 0, lambda: None)  # warms caches and arenas
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    probe = FloorProbe([talker, predictor], threads)
    floors: list[float] = []
    runs = [request(timed, frames, seed, lambda: floors.append(probe.run())) for seed in range(1, requests + 1)]

    made = sum(run.frames for run in runs)
    frame_ms = {name: 1e3 * sum(seconds) / made for name, seconds in watch.seconds.items() if name != "prefill"}
    floor_ms = 1e3 * statistics.median(floors)
    codes_ms = [1e3 * (a + b) for a, b in zip(watch.seconds["talker"], watch.seconds["code predictor"], strict=False)]
    audio = made * sizes.codec.samples_per_frame / sizes.codec.sample_rate
    wall = sum(run.wall for run in runs)
    prefill = statistics.median(watch.seconds["prefill"])
    rows = [
        ("talker", f"{frame_ms['talker']:.1f} ms a frame"),
        ("code predictor", f"{frame_ms['code predictor']:.1f} ms a frame"),
        ("codec decoder", f"{frame_ms['codec decoder']:.1f} ms a frame (chunks of {CHUNK_RAMP})"),
        (
            "everything else",
            f"{1e3 * wall / made - sum(frame_ms.values()) - 1e3 * prefill * requests / made:.1f} ms a frame",
        ),
        ("prefill", f"{1e3 * prefill:.0f} ms"),
        ("TTFA", f"{1e3 * statistics.median(run.first_audio for run in runs):.0f} ms"),
        ("RTF (wall / audio, below 1 is faster than real time)", f"{wall / audio:.2f}"),
        ("weights read a frame, talker + code predictor", f"{(talker.total + predictor.total) / 1e9:.2f} GB"),
        ("read bandwidth in this run", f"{probe.bytes_read / 1e6 / floor_ms:.1f} GB/s"),
        ("floor: that many bytes at that bandwidth", f"{floor_ms:.1f} ms a frame"),
        ("talker + code predictor against the floor", f"{statistics.median(codes_ms) / floor_ms:.2f} x"),
        ("weights read a chunk, codec decoder", f"{decoder.total / 1e9:.2f} GB"),
        ("opening the bundle, hashes verified", f"{opened:.1f} s"),
        ("peak RSS, opened / after a request", f"{resident:.2f} / {peak:.2f} GB"),
    ]
    title = (
        f"{bundle.manifest.id}, {bundle.manifest.precision}, {threads} threads, one row, "
        f"{requests} requests of {made // requests} frames; {machine()}, ONNX Runtime {onnxruntime.__version__}"
    )
    return "\n".join(
        [title, "", "| stage | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    )


def machine() -> str:
    """Cores and processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text("utf-8").splitlines() if "model name" in line]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: a random one of full size)")
    parser.add_argument("--size", choices=["0.6b", "1.7b"], default="0.6b", help="of the random one")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8", help="of the random one")
    parser.add_argument("--frames", type=int, default=50, help="codec frames a request (default: %(default)s, 4 s)")
    parser.add_argument("--requests", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU kernels (default: %(default)s)")
    options = parser.parse_args()
    if options.bundle is None:
        from benchmarks.checkpoints import full_size_bundle  # needs what the tests need

        options.bundle = full_size_bundle(options.size, options.precision)
    print(measure(options.bundle, options.frames, options.requests, options.threads))


if __name__ == "__main__":
    main()
