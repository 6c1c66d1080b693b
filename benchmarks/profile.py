"""Where a frame's time goes: `python -m benchmarks.profile --bundle FOLDER [--rows 1 4 8]`.

ONNX Runtime's own profile of each graph, by kind of node. Profiling itself costs a microsecond or two a node, so that
the sums lie above what `benchmarks.stages` measures; shares are what to read.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort

from benchmarks.attended import fill_caches
from benchmarks.placement import KERNEL_TIME
from server.bench.report import machine
from server.engine.synthesizer import CHUNK_RAMP
from server.graphs.code_predictor import CodePredictor
from server.graphs.codec_decoder import CodecDecoder, CodecState
from server.graphs.frame_state import Controls, FrameState, control_buffer
from server.graphs.memory import HostMemory
from server.graphs.session import open_session
from server.graphs.talker import Talker
from server.manifest import Manifest, read_manifest

RUNS, SHOWN = 8, 8
_CONTAINERS = ("Loop", "If")
"""Their time is that of the nodes inside them."""

Call = Callable[[], object]


def calls(name: str, session: ort.InferenceSession, manifest: Manifest, rows: int, past: int) -> tuple[Call, int]:
    """A call of one graph with some rows, and for how many codec frames of each it is; talker and codec decoder go on
    behind so many positions or frames, of random values."""
    sizes, random = manifest.sizes, np.random.default_rng(0)
    width, groups = sizes.talker.hidden_size, sizes.code_predictor.num_code_groups
    hidden = random.standard_normal((rows, width), np.float32)
    if name == "talker":
        short = sizes.talker.model_copy(update={"max_positions": past + 1})
        talker = Talker(session, sizes.model_copy(update={"talker": short}), slots=rows)
        fill_caches(talker, rows, past)
        lengths = np.full(rows, past, np.int32)
        return lambda: talker.decode(0, hidden, lengths), 1
    if name == "code_predictor":
        state = FrameState(HostMemory(), sizes, rows)
        state.logits.write(0, random.standard_normal((rows, sizes.talker.vocab_size), np.float32))
        state.hidden.write(0, hidden)
        predictor = CodePredictor(session, state)
        one = Controls(past, temperature=0.9, top_k=50, predictor_temperature=0.9, predictor_top_k=50)
        controls = control_buffer([one] * rows, list(random.random((rows, groups), np.float32)))
        return lambda: predictor.run(0, controls), 1
    decoder, frames = CodecDecoder(session), CHUNK_RAMP[-1]
    codes = random.integers(sizes.codec.codebook_size, size=(rows, frames, sizes.codec.num_quantizers))
    shapes = [tensor.shape() for tensor in decoder.start().tensors]
    drawn = [[random.standard_normal(shape, np.float32) for shape in shapes] for _ in range(rows)]
    states = [CodecState(past, tuple(ort.OrtValue.ortvalue_from_numpy(one) for one in each)) for each in drawn]
    return lambda: decoder.decode(codes, states), frames


def node_times(folder: Path, name: str, rows: int, threads: int, past: int) -> dict[str, tuple[float, float]]:
    """How many nodes of a kind run for a codec frame of each row, and the milliseconds that they take together."""
    manifest = read_manifest(folder)
    with TemporaryDirectory() as temporary:
        session = open_session(folder / manifest.graphs[name].file, "cpu", threads, Path(temporary, "profile"))
        call, frames = calls(name, session, manifest, rows, past)
        for _ in range(RUNS):
            call()
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    found: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL_TIME):
            kind = event["args"]["op_name"]
            if kind not in _CONTAINERS:
                count, milliseconds = found[kind]
                found[kind] = (count + 1 / RUNS / frames, milliseconds + event["dur"] / 1e3 / RUNS / frames)
    return dict(found)


def table(folder: Path, rows: int, threads: int, past: int) -> str:
    """Every graph's most expensive kinds of nodes."""
    lines = [f"| {rows} row{'s' * (rows > 1)} | nodes a frame | ms a frame | share |", "|---|---|---|---|"]
    for name in ("talker", "code_predictor", "codec_decoder"):
        times = node_times(folder, name, rows, threads, past)
        whole = sum(milliseconds for _, milliseconds in times.values())
        count = sum(count for count, _ in times.values())
        lines.append(f"| **{name}** | {count:.0f} | {whole:.1f} | |")
        for kind, (count, milliseconds) in sorted(times.items(), key=lambda item: -item[1][1])[:SHOWN]:
            lines.append(f"| {kind} | {count:.0f} | {milliseconds:.1f} | {milliseconds / whole:.0%} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True, help="folder of a bundle")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8], help="side by side")
    parser.add_argument("--past", type=int, default=200, help="positions that the talker looks back (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU kernels (default: %(default)s)")
    options = parser.parse_args()
    print(f"{options.bundle.name}, {options.threads} threads, {options.past} positions; {machine()}")
    for rows in options.rows:
        print("\n" + table(options.bundle, rows, options.threads, options.past))


if __name__ == "__main__":
    main()
