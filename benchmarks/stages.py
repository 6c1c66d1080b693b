"""Where the time of one request goes: `python -m benchmarks.stages [--bundle FOLDER]`.

Prints what `qwen3-tts bench` prints, then the time of each stage, the floor (how long this machine takes merely to read
the weights of a frame), and how much several rows gain. Runs of one row, runs of several and probes of the floor take
turns, because machines are noisy: figures of one run may be compared. Without `--bundle` it measures a full-size random
checkpoint, which it makes and converts once under `.cache/benchmarks`: speed does not depend on the values of weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import get_args

from benchmarks.floor import FloorProbe, cache_reads, frame_reads
from benchmarks.stopwatch import Stopwatch, timed_bundle
from server.bench.measure import Rss, measure, rss
from server.bench.report import report
from server.bench.speak import TEXT, Run, speak, text_of
from server.engine.provider import open_bundle
from server.engine.synthesizer import CHUNK_RAMP, Synthesizer
from server.graphs.cores import thread_count
from server.manifest import Manifest, Precision


@dataclass(frozen=True)
class Stages:
    """What `measure_stages` found.

    Attributes:
        manifest: the bundle's manifest.
        seconds: of every graph call, by the number of rows and by name: talker, code predictor, codec decoder.
        runs: requests of one row, whose voice had been used before.
        together: by the number of rows, a run of so many rows for each of `runs`.
        floors: by the number of rows, 1 among them, the bytes that talker and code predictor read for a frame in the
            middle of a run, the KV caches of all rows among them, and the median seconds that merely reading them took;
            none where the manifest does not say what is read.
        memory: of this process, once all rows had spoken; None where the operating system does not tell.
    """

    manifest: Manifest
    seconds: dict[int, dict[str, list[float]]]
    runs: list[Run]
    together: dict[int, list[Run]]
    floors: dict[int, tuple[int, float]]
    memory: Rss | None


def measure_stages(
    folder: Path, *, threads: int, frames: int, requests: int, tokens: int | None = None, rows: Sequence[int] = ()
) -> Stages:
    """Measure a bundle on the CPU; the arguments are those of `server.bench.measure.measure`, and `rows` is the numbers
    of rows to be measured besides one."""
    threads = thread_count(threads)
    numbers = [1, *(number for number in rows if number != 1)]
    bundle = open_bundle(folder, provider="cpu", threads=threads, slots=max(numbers))
    watches = {number: Stopwatch() for number in numbers}
    synthesizers = {number: Synthesizer(timed_bundle(bundle, watches[number])) for number in numbers}
    text = TEXT if tokens is None else text_of(bundle.prompts, tokens)
    warm = [speak(bundle, synthesizers[number], frames, 0, rows=number, text=text) for number in numbers]
    for watch in watches.values():
        watch.seconds.clear()
    memory = rss()  # before the probe takes some
    reads = frame_reads(bundle.manifest)
    cache = cache_reads(bundle.manifest, warm[0].middle)
    probe = FloorProbe(reads, threads, cache, max(numbers)) if reads else None
    found: dict[int, list[Run]] = {number: [] for number in numbers}
    for seed in range(1, requests + 1):
        for number in numbers:
            between = partial(probe.run, number) if probe else lambda: None
            synthesizer = synthesizers[number]
            found[number].append(speak(bundle, synthesizer, frames, seed, rows=number, text=text, between=between))
    floors = {number: (probe.bytes_read(number), median(probe.seconds[number])) for number in numbers} if probe else {}
    seconds = {number: dict(watch.seconds) for number, watch in watches.items()}
    return Stages(bundle.manifest, seconds, found.pop(1), found, floors, memory)


def table(found: Stages) -> str:
    """Write the rows of a Markdown table."""
    rows = [*_stages(found), *_floor(found), *_together(found)]
    return "\n".join(["| stage | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def parts_in_float32(manifest: Manifest) -> str:
    """Say what the conversion left in float32, as it decides for users, or that the manifest does not tell."""
    if manifest.graphs["codec_decoder"].precision == "fp32":
        return "all"
    chosen = manifest.parity.get("codec_decoder")
    if chosen is None:
        return "unknown: an older exporter, which forced random weights into 8 bits; convert the checkpoint again"
    return ", ".join(chosen["in_float32"]) or "none"


def _stages(found: Stages) -> Iterator[tuple[str, str]]:
    made = sum(run.frames for run in found.runs)
    stages = {name: 1e3 * sum(found.seconds[1][name]) / made for name in ("talker", "code predictor", "codec decoder")}
    for name, milliseconds in stages.items():
        note = f" (chunks of {CHUNK_RAMP})" if name == "codec decoder" else ""
        yield name, f"{milliseconds:.1f} ms a frame{note}"
    yield "parts of the codec decoder in float32", parts_in_float32(found.manifest)
    rest = 1e3 * sum(run.wall - run.prefill for run in found.runs) / made - sum(stages.values())
    yield "everything else", f"{rest:.1f} ms a frame"
    steady = median(run.steady_seconds for run in found.runs)
    yield "steady frame, all stages", f"{1e3 * steady:.1f} ms"
    yield "prefill", f"{1e3 * median(run.prefill for run in found.runs):.0f} ms"
    yield "TTFA in steady frames", f"{median(run.first_audio for run in found.runs) / steady:.1f}"


def against_floor(found: Stages, rows: int) -> str:
    """How many times the floor the calls of talker and code predictor take for a frame of so many rows."""
    codes = [a + b for a, b in zip(found.seconds[rows]["talker"], found.seconds[rows]["code predictor"], strict=False)]
    return f"{median(codes) / found.floors[rows][1]:.2f} x"


def _floor(found: Stages) -> Iterator[tuple[str, str]]:
    if not found.floors:
        yield "floor", "unknown, this bundle does not say what a frame reads; convert the checkpoint again"
        return
    size, seconds = found.floors[1]
    yield "weights and KV cache read a frame, talker + code predictor", f"{size / 1e9:.2f} GB"
    yield "read bandwidth in this run", f"{size / 1e9 / seconds:.1f} GB/s"
    yield "floor: that many bytes at that bandwidth", f"{1e3 * seconds:.1f} ms a frame"
    yield "talker + code predictor against the floor", against_floor(found, 1)
    decoder = found.manifest.graphs["codec_decoder"].reads
    if decoder is not None:
        yield "weights read a chunk, codec decoder", f"{decoder.total / 1e9:.2f} GB"


def _together(found: Stages) -> Iterator[tuple[str, str]]:
    if found.together:
        alone = median(run.frames_per_second for run in found.runs)
        yield "1 row", f"{alone:.1f} frames a second without the prefill"
    for rows, runs in found.together.items():
        ratio = median(
            several.frames_per_second / one.frames_per_second for one, several in zip(found.runs, runs, strict=True)
        )
        speed = median(run.frames_per_second for run in runs)
        yield f"{rows} rows together", f"{speed:.1f} frames a second, {ratio:.2f} times one row's"
        if found.floors:
            size, seconds = found.floors[rows]
            said = f"{size / 1e9:.2f} GB in {1e3 * seconds:.1f} ms; {against_floor(found, rows)}"
            yield f"{rows} rows: read a frame, and talker + code predictor against that floor", said
    if found.together and found.memory:
        yield "RSS after all rows", f"{found.memory.now / 1e9:.2f} GB, at most {found.memory.peak / 1e9:.2f}"


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: a random one of full size)")
    parser.add_argument("--size", choices=["0.6b", "1.7b"], default="0.6b", help="of the random one")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8", help="of the random one")
    parser.add_argument("--frames", type=int, default=100, help="codec frames a request (default: %(default)s, 8 s)")
    parser.add_argument("--tokens", type=int, default=60, help="of a request's text (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--rows", type=int, nargs="+", default=[], help="also so many requests side by side")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU kernels (default: %(default)s)")
    options = parser.parse_args()
    if options.bundle is None:
        from benchmarks.checkpoints import full_size_bundle  # needs what the tests need

        options.bundle = full_size_bundle(options.size, options.precision)
    how = {name: getattr(options, name) for name in ("threads", "frames", "requests", "tokens")}
    print(report(measure(options.bundle, provider="cpu", **how)))
    print(f"\n{table(measure_stages(options.bundle, rows=options.rows, **how))}")


if __name__ == "__main__":
    main()
