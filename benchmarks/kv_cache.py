"""The talker's KV cache in 8 bits against float32: `python -m benchmarks.kv_cache --bundle FLOAT32 INT8`.

Milliseconds that the talkers of some bundles take for a frame behind so many positions. They take turns, since the
machine's speed drifts; processor time of one thread changes less than the clock's. With `--agreement` one bundle with a
float32 cache says texts that no scale comes from, and its talker is fed them again with caches in 8 bits: how many
greedy codes stay the same, and how far the distributions that codes are drawn from differ.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.attended import fill_caches
from server.bench.report import machine
from server.graphs.session import open_session
from server.graphs.talker import Talker
from server.manifest import Manifest, read_manifest

Floats = NDArray[np.float32]
Scales = Sequence[Floats]

HELD_OUT = Path(__file__).resolve().parent.parent / "models" / "qwen3_tts_tiny" / "recipe" / "heldout.txt"
TEMPERATURE = 0.9
OPENED, CALLS = 3, 12
"""How often each session is opened anew, since two of one graph differ by some percent, and its calls each time."""


def times(folders: Sequence[Path], rows: int, past: int, threads: int) -> dict[Path, list[tuple[float, float]]]:
    """Seconds of the processor and of the clock of each call, by bundle."""
    found: dict[Path, list[tuple[float, float]]] = {folder: [] for folder in folders}
    for _ in range(OPENED):
        ready = {folder: _call(folder, rows, past, threads) for folder in folders}
        for _ in range(CALLS):
            for folder, call in ready.items():
                call()  # what other graphs left in the processor's caches goes
                start = time.process_time(), time.perf_counter()
                call()
                found[folder].append((time.process_time() - start[0], time.perf_counter() - start[1]))
    return found


def _call(folder: Path, rows: int, past: int, threads: int) -> Callable[[], object]:
    manifest = read_manifest(folder)
    session = open_session(folder / manifest.graphs["talker"].file, "cpu", threads)
    short = manifest.sizes.talker.model_copy(update={"max_positions": past + 1})
    talker = Talker(session, manifest.sizes.model_copy(update={"talker": short}), slots=rows)
    fill_caches(talker, rows, past)
    random = np.random.default_rng(0)
    hidden, lengths = random.standard_normal((rows, short.hidden_size), np.float32), np.full(rows, past, np.int32)
    return lambda: talker.decode(0, hidden, lengths)


def table(folders: Sequence[Path], rows: Sequence[int], pasts: Sequence[int], threads: int) -> str:
    """Write a Markdown table; what is beside a time is how many times the first bundle's it is, by the processor."""
    lines = ["| bundle | KV cache | positions | rows | processor, ms | clock, ms | times the first |"]
    lines.append("|---|---|---|---|---|---|---|")
    for past in pasts:
        for count in rows:
            found = times(folders, count, past, threads)
            for folder, measured in found.items():
                pairs = zip(measured, found[folders[0]], strict=True)
                ratio = median(mine / first for (mine, _), (first, _) in pairs)
                processor, clock = (1e3 * median(each) for each in zip(*measured, strict=True))
                lines.append(
                    f"| {folder.name} | {read_manifest(folder).kv_cache} | {past} | {count} | {processor:.1f} | "
                    f"{clock:.1f} | {ratio:.2f} |"
                )
    return "\n".join(lines)


def scales_to_try(seen: Scales, headroom: float) -> dict[str, Scales]:
    """Scales of several kinds, as `export.kv_cache` takes them, by what they are."""
    bare = [scale / np.float32(headroom) for scale in seen]
    heads = [np.broadcast_to(scale.max(axis=3, keepdims=True), scale.shape).copy() for scale in seen]
    return {
        "a scale a channel": seen,
        "the same without room": bare,
        "a scale a head": heads,
        "a scale a tensor": [np.full_like(scale, scale.max()) for scale in seen],
    }


def agreement_table(folder: Path, sentences: int) -> str:
    """Write a Markdown table of the kinds of scales; the scales come from the converter's own texts."""
    from export.calibration import spoken  # torch, which takes its time to be imported
    from export.kv_cache import HEADROOM, replayed, scales_of

    manifest = read_manifest(folder)
    held_out = [text for text in HELD_OUT.read_text("utf-8").splitlines() if len(text.split()) >= 4][:sentences]
    seen = scales_of(spoken(folder, manifest, lambda done, total: None))
    said = spoken(folder, manifest, lambda done, total: None, texts=held_out)
    graph = folder / manifest.graphs["talker"].file
    lines = [
        "| KV cache in 8 bits | greedy codes of codebook 0 equal | part of draws that change, at most |",
        "|---|---|---|",
    ]
    for name, scales in scales_to_try(seen, HEADROOM).items():
        talker = _talker_with(graph, scales, manifest)
        pairs = [(replayed(talker, one), one.logits[: len(one.codes)]) for one in said]
        equal = sum(int((found.argmax(1) == expected.argmax(1)).sum()) for found, expected in pairs)
        changed = np.concatenate([_variation(found, expected) for found, expected in pairs])
        lines.append(f"| {name} | {equal} of {len(changed)} | {changed.mean():.4f} |")
    return "\n".join(lines)


def _talker_with(graph: Path, scales: Scales, manifest: Manifest) -> Talker:
    from export.graphs.files import save_graph
    from export.kv_cache import quantise_cache

    model = onnx.load(graph)
    quantise_cache(model, scales)
    with TemporaryDirectory() as scratch:
        path = Path(scratch, graph.name)
        save_graph(model, path)
        return Talker(open_session(path, "cpu", 0), manifest.sizes, slots=1)


def _variation(found: Floats, expected: Floats) -> Floats:
    """The total variation between two distributions of code 0, of each frame."""
    first, second = (_softmax(logits / TEMPERATURE) for logits in (found, expected))
    varied: Floats = np.abs(first - second).sum(axis=1) / 2
    return varied


def _softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = weights / weights.sum(axis=1, keepdims=True)
    return shares


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kv_cache", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, nargs="+", required=True, help="folders; the first is compared with")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8], help="side by side")
    parser.add_argument("--past", type=int, nargs="+", default=[64, 400], help="positions that the talker looks back")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU kernels (default: %(default)s)")
    parser.add_argument("--agreement", action="store_true", help="compare codes instead, of the first bundle")
    parser.add_argument("--sentences", type=int, default=20, help="to compare codes with (default: %(default)s)")
    options = parser.parse_args()
    if options.agreement:
        if (kind := read_manifest(options.bundle[0]).kv_cache) != "float32":
            parser.error(f"{options.bundle[0].name} has a KV cache in {kind}; convert with --kv-cache float32")
        print(f"{options.bundle[0].name}, {options.sentences} held-out sentences; {machine()}\n")
        print(agreement_table(options.bundle[0], options.sentences))
        return
    print(f"One frame of the talker, {options.threads} thread(s); {machine()}\n")
    print(table(options.bundle, options.rows, options.past, options.threads))


if __name__ == "__main__":
    main()
