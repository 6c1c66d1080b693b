"""Whether an operator of our own is faster: `python -m benchmarks.operator --bundle FOLDER`.

Compares a bundle in int8 as it ships with the same whose talker and code predictor have one node of our own for all
their layers: the codes and logits first, then each graph by itself, then whole requests. Both take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.attended import fill_caches
from benchmarks.operator.fused import build, fuse, with_changed, without_rounding
from benchmarks.stopwatch import Stopwatch, timed_bundle
from server.bench.report import machine
from server.bench.speak import TEXT, Run, speak
from server.engine.bundle import OpenBundle
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.graphs.code_predictor import forced_logits
from server.graphs.frame_state import Controls, RowOutput, control_buffer
from server.manifest import read_manifest

STOCK, OURS, COPIES = "stock", "operator", "operator, huge pages"
BUILT = Path(".cache/benchmarks/operator")
WARM = 2
"""Calls before the one that is timed, so that each finds the processor's caches as it leaves them."""
STAGES = ("talker", "code predictor", "codec decoder")

Clock = Callable[[], float]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Spoken:
    """Greedy frames of one row. Shapes: `prompt` `[positions, hidden]`, `hidden` and `inputs` `[frames, hidden]` (of
    the talker before each frame, and what it is fed after it), `codes` `[frames, groups]`."""

    prompt: Floats
    hidden: Floats
    inputs: Floats
    codes: Ints


def greedy(bundle: OpenBundle, frames: int) -> Spoken:
    """Speak so many frames greedily; end-of-speech is passed over."""
    speaker = next(iter(bundle.manifest.speakers), None)
    prompt = bundle.prompts.build(TEXT, speaker=speaker, language="auto", instruction=None).embeddings
    talker, state = bundle.talker, bundle.talker.state
    logits, hidden = talker.prefill(0, prompt)
    sizes = bundle.manifest.sizes
    state.put(0, RowOutput(logits[0], hidden[0]), np.zeros(sizes.talker.vocab_size, np.bool_))
    state.put_text(0, bundle.prompts.pad)
    uniforms, last = np.zeros(sizes.code_predictor.num_code_groups, np.float32), -1
    found: dict[str, list[Any]] = {"hidden": [], "inputs": [], "codes": []}
    for length in range(len(prompt), len(prompt) + frames):
        found["hidden"].append(state.hidden.read(0, 1)[0])
        controls = Controls(length=length, last_code=last, repetition_penalty=1.05)
        (codes,) = bundle.code_predictor.run(0, control_buffer([controls], [uniforms]))
        found["codes"].append(codes)
        found["inputs"].append(state.talker_inputs.read(0, 1)[0, 0])
        talker.advance(0, 1, length + 1)
        last = int(codes[0])
    return Spoken(prompt, **{name: np.stack(values) for name, values in found.items()})


def forced(bundle: OpenBundle, spoken: Spoken, rows: int = 1) -> tuple[Floats, Floats]:
    """Logits of the first of so many equal rows that are fed what was spoken: of the talker behind each frame
    `[frames, vocab_size]`, and of the code predictor `[frames, groups - 1, codes]`."""
    talker, found = bundle.talker, []
    for slot in range(rows):
        talker.prefill(slot, spoken.prompt)
    for length, inputs in enumerate(spoken.inputs, len(spoken.prompt)):
        fed = np.repeat(inputs[None], rows, 0)
        found.append(talker.decode(0, fed, np.full(rows, length, np.int32)).logits[0])
    session = bundle.code_predictor._session  # the measurement needs its logits, which no wrapper gives
    pairs = zip(spoken.hidden, spoken.codes, strict=True)
    predicted = [forced_logits(session, *(np.repeat(one[None], rows, 0) for one in pair))[0] for pair in pairs]
    return np.stack(found), np.stack(predicted)


def agreement(stock: OpenBundle, ours: OpenBundle, exact: OpenBundle, frames: int) -> str:
    """How far logits and greedy codes are from one another, where all are fed what the stock graphs spoke.

    Args:
        stock: the bundle as it ships.
        ours: the same with the operator.
        exact: the same whose activations are not quantised.
        frames: how many.
    """
    spoken = greedy(stock, frames)
    alone = {name: forced(bundle, spoken) for name, bundle in (("s", stock), ("o", ours), ("e", exact))}
    cases = {
        "stock against activations in float32": (alone["s"], alone["e"]),
        "operator against activations in float32": (alone["o"], alone["e"]),
        "operator against stock": (alone["o"], alone["s"]),
        "stock, two rows against one": (forced(stock, spoken, 2), alone["s"]),
        "operator, two rows against one": (forced(ours, spoken, 2), alone["o"]),
    }
    lines = [
        "| what | talker: error, greedy codes equal | code predictor: error, greedy codes equal |",
        "|---|---|---|",
    ]
    for name, pair in cases.items():
        cells = []
        for some, to in zip(*pair, strict=True):
            error = np.sqrt(np.square(some - to).mean() / np.square(to).mean())
            same = some.argmax(-1) == to.argmax(-1)
            cells.append(f"{error:.1e}, {same.sum()} of {same.size}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def resident(opens: Callable[[], OpenBundle]) -> tuple[OpenBundle, str]:
    """What is opened, the anonymous memory that it took, and the seconds."""
    before, start = anonymous(), time.perf_counter()
    bundle = opens()
    return bundle, f"{(anonymous() - before) / 1e9:.2f} GB, {time.perf_counter() - start:.1f} s"


def anonymous() -> int:
    """Bytes of this process that no file has; Linux only."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of calls that take turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(WARM + 1):
                start = clock()
                call()
                last = clock() - start
            found[name].append(last)
    return found


def graphs(bundles: Mapping[str, OpenBundle], rows: int, past: int, rounds: int, clock: Clock) -> list[str]:
    """Lines of a table: each graph by itself, for so many rows, the talker behind so many positions."""
    groups = next(iter(bundles.values())).manifest.sizes.code_predictor.num_code_groups
    controls = control_buffer([Controls(length=past)] * rows, [np.zeros(groups, np.float32)] * rows)
    for bundle in bundles.values():
        fill_caches(bundle.talker, rows, past)

    def prefill(bundle: OpenBundle) -> None:
        bundle.talker.prefill(0, np.zeros((32, bundle.manifest.sizes.talker.hidden_size), np.float32) + 0.01)

    def predict(bundle: OpenBundle) -> None:
        bundle.code_predictor.run(0, controls)

    def advance(bundle: OpenBundle) -> None:
        bundle.talker.advance(0, rows, past + 1)

    cases: dict[str, Callable[[OpenBundle], None]] = {"code predictor": predict, f"talker, {past} positions": advance}
    if rows == 1:
        cases["prefill of 32 positions"] = prefill
    lines = []
    for name, case in cases.items():
        found = in_turn({of: partial(case, bundle) for of, bundle in bundles.items()}, rounds, clock)
        for of, seconds in found.items():
            gain = median(stock / own for stock, own in zip(found[STOCK], seconds, strict=True))
            cells = f"{1e3 * median(seconds):.1f} | {gain:.2f} | {1e3 * min(seconds):.1f}"
            lines.append(f"| {name} | {rows} | {of} | {cells} | {min(found[STOCK]) / min(seconds):.2f} |")
    return lines


def requests(bundles: Mapping[str, OpenBundle], rows: int, frames: int, rounds: int) -> list[str]:
    """Lines of a table: whole requests side by side, from the text to the last sample."""
    watches = {name: Stopwatch() for name in bundles}
    synthesizers = {name: Synthesizer(timed_bundle(bundle, watches[name])) for name, bundle in bundles.items()}
    found: dict[str, list[Run]] = {name: [] for name in bundles}
    for seed in range(rounds + 1):  # the first one warms up
        for name, bundle in bundles.items():
            found[name].append(speak(bundle, synthesizers[name], frames, seed, rows=rows))
    lines = []
    for of, runs in found.items():
        pace = {name: [run.wall / run.frames for run in some[1:]] for name, some in found.items()}
        gains = [stock / own for stock, own in zip(pace[STOCK], pace[of], strict=True)]
        frame, first = 1e3 * median(pace[of]), 1e3 * median(run.first_audio for run in runs[1:])
        calls = " | ".join(f"{1e3 * median(watches[of].seconds[stage]):.1f}" for stage in STAGES)
        said = ", ".join(f"{gain:.2f}" for gain in gains)
        lines.append(f"| {rows} | {of} | {frame:.1f} | {first:.0f} | {median(gains):.2f} ({said}) | {calls} |")
    return lines


def main() -> None:
    """Parse the options, build, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bundle", type=Path, required=True, help="folder of a bundle in int8 whose KV cache is float32"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8], help="(default: %(default)s)")
    parser.add_argument("--past", type=int, default=200, help="positions that the talker looks back over (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="of each graph by itself (%(default)s)")
    parser.add_argument("--requests", type=int, default=3, help="rounds of whole requests (%(default)s)")
    parser.add_argument("--frames", type=int, default=30, help="of a request (%(default)s)")
    parser.add_argument("--agree", type=int, default=16, help="frames whose codes are compared (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--compiler", default="g++", help="(default: %(default)s)")
    parser.add_argument("--avx2", action="store_true", help="have the operator do without AVX-512")
    options = parser.parse_args()
    folder, threads, avx2 = options.bundle, options.threads, options.avx2
    if read_manifest(folder).kv_cache != "float32":
        parser.error(f"the operator has no KV cache in 8 bits, as {folder} has: convert with --kv-cache float32")
    library = build(BUILT, options.compiler)
    slots = max(2, *options.rows)
    bundles, taken = {}, {}
    bundles[STOCK], taken[STOCK] = resident(lambda: open_bundle(folder, provider="cpu", threads=threads, slots=slots))
    for name, copies in ((OURS, False), (COPIES, True)):
        change = partial(fuse, copies=copies, avx2=avx2)
        opened = partial(with_changed, bundles[STOCK], folder, change, threads, library)
        bundles[name], taken[name] = resident(opened)
    print(f"{threads} threads, {'AVX2' if avx2 else 'best instructions'}; {machine()}, {onnxruntime.__version__}\n")
    print(
        "Anonymous memory and seconds of opening; the operator without codec decoder and "
        "tokenizer, and before its first call, in which huge pages are filled:",
        taken,
    )
    if options.agree:
        exact = with_changed(bundles[STOCK], folder, without_rounding, threads)
        print(f"\n{agreement(bundles[STOCK], bundles[OURS], exact, options.agree)}", flush=True)
        del exact
    if options.rounds:
        # With one thread nobody spins, so that its processor time says more on a machine that is not quiet.
        clock = time.process_time if threads == 1 else time.perf_counter
        print("\n| graph, ms a call | rows | | median | times stock's speed | least | times stock's |")
        print("|---|---|---|---|---|---|---|")
        for rows in options.rows:
            print("\n".join(graphs(bundles, rows, options.past, options.rounds, clock)), flush=True)
    if options.requests:
        calls = ", ms a call | ".join(STAGES)
        print(f"\n| rows | | request, ms a frame | TTFA, ms | times stock's speed (by round) | {calls}, ms a call |")
        print("|---|---|---|---|---|---|---|---|")
        for rows in options.rows:
            print("\n".join(requests(bundles, rows, options.frames, options.requests)), flush=True)


if __name__ == "__main__":
    main()
