"""How fast full-size models run on a GPU: `python -m benchmarks.gpu`.

Builds random bundles of full size (once, under `.cache/benchmarks`; or takes `--bundle`), sees that every node of a
frame's graphs runs on the device and that the device draws the CPU's codes, then measures the engine that serves: one
row, the codec decoder at changing shapes, and many rows that start at once. `--provider cpu --sizes tiny` runs all of
it without a GPU, in seconds, and says nothing of speed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from benchmarks.gpu_parity import parity
from benchmarks.observed import percentile
from benchmarks.placement import PROVIDERS, profiled
from benchmarks.stopwatch import Stopwatch, timed_bundle
from server.bench.report import machine
from server.bench.speak import RAMP_FRAMES, TEXT, TimedJob, speak
from server.engine.bundle import OpenBundle
from server.engine.job import Sampling
from server.engine.provider import open_bundle
from server.engine.synthesizer import CHUNK_RAMP, Synthesizer
from server.engine.worker import Engine
from server.graphs import session
from server.graphs.cuda.views import BFLOAT16, FLOAT16, FLOAT32
from server.graphs.frame_state import IDLE, control_buffer
from server.graphs.session import Chosen, ProviderError, check_provider
from server.graphs.talker import LAST
from server.manifest import BundleError, Manifest, read_manifest

PROMPT_ROOM = 128
"""Positions that are kept for the prompt; `TEXT` takes fewer."""
_ELEMENT_TYPES = {"float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16}
PROBE_BYTES, PROBE_RUNS = 1 << 29, 10


Lines = Iterator[tuple[str, str]]
Step = Callable[[Path, Chosen, argparse.Namespace], Lines]


@dataclass(frozen=True)
class Together:
    """Rows that started at once: seconds until an engine had made a first, short speech of all of them, and of a second
    one codec frames of all, wall seconds, each row's seconds to its first audio, and frames that came late for a
    player."""

    rows: int
    ready: float
    frames: int
    wall: float
    first_audio: list[float]
    late: int


def bandwidth(device: Chosen, size: int) -> float:
    """Measure the bytes a second that the device reads and writes, by negating `size` bytes."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "probe", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    probe = ort.InferenceSession(model.SerializeToString(), providers=[PROVIDERS[device]])
    binding, one = probe.io_binding(), np.ones(size // 8, np.float32)
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(one, device, 0))
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_shape_and_type(one.shape, np.float32, device, 0))
    seconds = []
    for _ in range(PROBE_RUNS):
        start = time.perf_counter()
        probe.run_with_iobinding(binding)
        seconds.append(time.perf_counter() - start)
    return 2 * one.nbytes / median(seconds)


def placement(folder: Path, manifest: Manifest, device: Chosen) -> int:
    """Nodes of talker and code predictor, all of them on the device.

    Raises:
        PlacementError: one was not.
    """
    sizes = manifest.sizes
    caches = {
        spec.name: ort.OrtValue.ortvalue_from_shape_and_type(
            [1 if axis == "rows" else 16 if isinstance(axis, str) else axis for axis in spec.shape],
            _ELEMENT_TYPES[spec.dtype],
            device,
            0,
        )
        for spec in manifest.graphs["talker"].inputs
        if spec.name.startswith("past.")
    }
    length = np.array([1], np.int32)
    embeds = np.zeros((1, 1, sizes.talker.hidden_size), np.float32)
    talker = {"inputs_embeds": embeds, "lengths": length, "total_length": length, **caches}
    if LAST in {spec.name for spec in manifest.graphs["talker"].inputs}:
        talker[LAST] = np.zeros(1, np.int64)
    groups, vocab_size = sizes.code_predictor.num_code_groups, sizes.talker.vocab_size
    predictor = {
        "controls": control_buffer([IDLE], [np.zeros(groups, np.float32)]),
        "talker_logits": np.zeros((1, vocab_size), np.float32),
        "hidden": embeds[0],
        "seen": np.zeros((1, vocab_size), np.bool_),
        "forced_codes": np.full((1, groups), -1, np.int64),
        "text_embeds": embeds[0],
    }
    feeds: dict[str, dict[str, Any]] = {"talker": talker, "code_predictor": predictor}
    return sum(profiled(folder / manifest.graphs[name].file, device, feed) for name, feed in feeds.items())


def together(bundle: OpenBundle, rows: int, frames: int, seed: int) -> Together:
    """Speak some requests at once through the engine's own thread, twice; all audio is read at once.

    The first time is short and not measured: kernels are loaded, and CUDA graphs recorded.
    """
    sampling, began, ready = Sampling.of(bundle.manifest.generation), time.perf_counter(), 0.0
    engine = Engine(bundle, max_queue=rows)
    try:
        speaker = next(iter(bundle.manifest.speakers), None)
        prompt = engine.prompt(TEXT, speaker=speaker, language="auto", instruction=None)
        for most in (RAMP_FRAMES, frames):
            jobs = [TimedJob(prompt, sampling, seed * rows + row, most, most + RAMP_FRAMES) for row in range(rows)]
            start = time.perf_counter()
            for job in jobs:
                engine.submit(job)
            for job in jobs:
                for _ in job:
                    pass
            wall = time.perf_counter() - start
            ready = ready or time.perf_counter() - began
    finally:
        engine.close()
    second = bundle.manifest.sizes.codec.samples_per_frame / bundle.manifest.sizes.codec.sample_rate
    late = sum(late_frames(job.heard, second) for job in jobs)
    made, first = sum(job.frames for job in jobs), [job.heard[0][0] - start for job in jobs if job.heard]
    return Together(rows, ready, made, wall, first, late)


def late_frames(heard: Sequence[tuple[float, int]], second: float) -> int:
    """Count the frames that came too late for a player that starts with the first of them.

    Args:
        heard: when each chunk came, in seconds, and its frames.
        second: seconds of a frame.
    """
    late, due = 0, heard[0][0] if heard else 0.0
    for at, frames in heard:
        late += sum(at > due + index * second for index in range(frames))
        due += frames * second
    return late


def lines(folder: Path, device: Chosen, options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Measure one bundle, and yield the rows of a table."""
    for step in options.steps:
        yield from STEPS[step](folder, device, options)


def _nodes(folder: Path, device: Chosen, options: argparse.Namespace) -> Lines:
    nodes = placement(folder, read_manifest(folder), device)
    yield f"nodes of talker and code predictor on {PROVIDERS[device]}", f"all {nodes}"


def _parity(folder: Path, device: Chosen, options: argparse.Namespace) -> Lines:
    found = parity(folder, device, options.threads)
    for name, (equal, compared) in found.codes.items():
        yield f"greedy codes equal to the CPU's, {name}", f"{equal} of {compared}"
    for name, error in found.errors.items():
        yield f"largest difference from the CPU, {name}", f"{error:.1e} of its largest magnitude"


def _one(folder: Path, device: Chosen, options: argparse.Namespace) -> Lines:
    start = time.perf_counter()
    opened = _open(folder, device, 1, options)
    yield "opened and tried out", f"{time.perf_counter() - start:.1f} s"
    watch = Stopwatch()
    timed = timed_bundle(opened, watch)
    synthesizer = Synthesizer(timed)
    start = time.perf_counter()
    synthesizer.warm_up()
    yield "warmed up", f"{time.perf_counter() - start:.1f} s"
    speak(timed, synthesizer, RAMP_FRAMES, 0)
    watch.seconds.clear()
    run = speak(timed, synthesizer, options.frames, 1)
    codec = opened.manifest.sizes.codec
    audio = run.frames * codec.samples_per_frame / codec.sample_rate
    for name, seconds in watch.seconds.items():
        beside = "chunk, beside the talker" if opened.overlaps_decoding else "chunk"
        each = beside if name == "codec decoder" else "frame"
        yield f"{name}, 1 row", f"{1e3 * median(seconds):.2f} ms a {each}"
    yield "prefill, 1 row", f"{1e3 * run.prefill:.2f} ms for {run.positions} positions"
    yield "steady frame, all stages, 1 row", f"{1e3 * run.steady_seconds:.2f} ms"
    yield "RTF (wall / audio, below 1 is faster than real time), 1 row", f"{run.wall / audio:.3f}"
    yield "TTFA without a server, 1 row", f"{1e3 * run.first_audio:.1f} ms"
    yield from _floor(opened.manifest, device, options.probe_bytes)


def _decoder(folder: Path, device: Chosen, options: argparse.Namespace) -> Lines:
    """The codec decoder at shapes that stay, and at shapes that change with every call, as rows come and go."""
    decoder, groups = _open(folder, device, 8, options).codec_decoder, read_manifest(folder).sizes.codec.num_quantizers
    shapes = [(rows, frames) for rows in (1, 3, 8) for frames in CHUNK_RAMP]

    def seconds(rows: int, frames: int) -> float:
        codes, states = np.ones((rows, frames, groups), np.int64), [decoder.start()] * rows
        start = time.perf_counter()
        decoder.decode(codes, states)
        return time.perf_counter() - start

    for shape in shapes:
        first, *later = (seconds(*shape) for _ in range(6))
        name = "codec decoder, {} rows of {} frames".format(*shape)
        yield name, f"{1e3 * median(later):.2f} ms again and again, {1e3 * first:.1f} ms the first time"
    mixed = [seconds(*shape) for _ in range(3) for shape in shapes]
    yield "codec decoder, these shapes in turn", f"{1e3 * median(mixed):.1f} ms a call"


def _rows(folder: Path, device: Chosen, options: argparse.Namespace) -> Lines:
    codec = read_manifest(folder).sizes.codec
    for rows in options.rows:
        found = together(_open(folder, device, rows, options), rows, options.frames, 1)
        speed = found.frames * codec.samples_per_frame / codec.sample_rate / found.wall
        first = 1e3 * percentile(found.first_audio, 95)
        yield (
            f"{rows} rows that start at once",
            f"{speed:.1f} s of audio a second, p95 TTFA {first:.0f} ms, "
            f"{found.late} of {found.frames} frames late for real time; ready after {found.ready:.1f} s",
        )


def _launches(folder: Path, device: Chosen, options: argparse.Namespace) -> Lines:
    from benchmarks.gpu_launches import launches  # torch, whose profiler sees the kernels of the whole process

    yield from launches(_open(folder, device, 1, options))


STEPS: dict[str, Step] = {
    "placement": _nodes,
    "parity": _parity,
    "one": _one,
    "decoder": _decoder,
    "rows": _rows,
    "launches": _launches,
}


def _floor(manifest: Manifest, device: Chosen, probe_bytes: int) -> Iterator[tuple[str, str]]:
    reads = [manifest.graphs[name].reads for name in ("talker", "code_predictor")]
    total, speed = sum(read.total for read in reads if read), bandwidth(device, probe_bytes)
    yield "weights read a frame, talker + code predictor", f"{total / 1e9:.3f} GB"
    yield "memory bandwidth in this run, read and written", f"{speed / 1e9:.1f} GB/s"
    yield "memory floor: that many bytes at that bandwidth", f"{1e3 * total / speed:.2f} ms a frame"


def _open(folder: Path, device: Chosen, rows: int, options: argparse.Namespace) -> OpenBundle:
    positions = PROMPT_ROOM + options.frames
    return open_bundle(
        folder,
        provider=device,
        threads=options.threads,
        slots=rows,
        positions=positions,
    )


def main(arguments: list[str] | None = None, bundle_of: Callable[[str, str], Path] | None = None) -> int:
    """Parse the options, measure, print; 1 where a bundle cannot run on the provider or nodes are elsewhere."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--provider", choices=PROVIDERS, default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=["0.6b", "1.7b", "tiny"], default=["0.6b", "1.7b"])
    parser.add_argument("--bundle", type=Path, help="a bundle of any size, in place of random ones")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=["placement", "parity", "one", "decoder", "rows"])
    parser.add_argument("--option", nargs="+", default=[], help="of the CUDA provider, as GRAPH.NAME=VALUE")
    parser.add_argument("--entry", nargs="+", default=[], help="session options for CUDA, as NAME=VALUE")
    parser.add_argument("--precision", choices=["bf16", "fp16", "int4_bf16"], help="bf16 by default; on the CPU fp16")
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 32, 64, 128])
    parser.add_argument("--frames", type=int, default=125, help="codec frames a row (default: %(default)s, 10 s)")
    parser.add_argument("--threads", type=int, default=0, help="of CPU kernels; 0 is one a core")
    parser.add_argument("--probe-bytes", type=int, default=PROBE_BYTES, help="read and written to find the bandwidth")
    options = parser.parse_args(arguments)
    device: Chosen = options.provider
    precision = options.precision or ("bf16" if device == "cuda" else "fp16")
    try:
        check_provider(device)
    except ProviderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if device == "cpu":
        print("This runs on the CPU: it shows that the benchmark works, and no figure below is a GPU's.\n")
    for text in options.option:
        name, value = text.split("=", 1)
        graph, option = name.split(".", 1)
        session.CUDA_OPTIONS[graph][option] = value
    session.CUDA_ENTRIES.update(text.split("=", 1) for text in options.entry)
    if options.bundle is not None:
        folders = [options.bundle]
    else:
        if bundle_of is None:
            from benchmarks.checkpoints import full_size_bundle  # what makes them imports the exporter

            bundle_of = full_size_bundle
        folders = [bundle_of(size, precision) for size in options.sizes]
    for folder, size in zip(folders, [options.bundle.name] if options.bundle else options.sizes, strict=True):
        trial = "".join(f", {each}" for each in (*options.option, *options.entry))
        print(f"{size}, {precision}, {device}{trial}; {machine()}, ONNX Runtime {ort.__version__}\n")
        print("| what | measured |\n|---|---|")
        try:
            for name, value in lines(folder, device, options):
                print(f"| {name} | {value} |", flush=True)
        except (AssertionError, BundleError, ProviderError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
