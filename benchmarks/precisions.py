"""What each precision costs and gives: `python -m benchmarks.precisions [--checkpoint FOLDER]`.

A checkpoint, by default the embedded model's, is converted in each precision, unless that has been done. The table has
the weight bytes that talker and code predictor read for a codec frame, their time, in which the bundles take turns, how
many greedy codes equal those of float32 when every step is fed what float32 was fed, over several texts, and with
`--words` the word error rate of that many held-out sentences. Needs what the tests need.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.checkpoints import CACHE
from benchmarks.floor import frame_reads
from benchmarks.quality import EMBEDDED, HELD_OUT, RATE, say, sentences, speaking
from benchmarks.recogniser import hear, word_error_rate
from benchmarks.stopwatch import Stopwatch, timed_bundle
from export.checkpoint import open_checkpoint
from export.parity import measure, reference
from server.bench.report import machine
from server.bench.speak import speak
from server.engine.bundle import OpenBundle, open_prompts
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.manifest import CODEC_TABLE, MANIFEST_NAME, read_manifest

PRECISIONS = ("fp32", "int8", "w8a8", "mixed", "int4")
ROWS = 2
"""Sentences that are spoken at once."""


def bundle_of(checkpoint: Path, precision: str, folder: Path, options: Sequence[str]) -> Path:
    """The bundle of a checkpoint in some precision, converted in a process of its own unless it is there.

    Raises:
        subprocess.CalledProcessError: the conversion failed; it has said why.
    """
    bundle = folder / f"{checkpoint.name}_{precision}"
    if not (bundle / MANIFEST_NAME).is_file():
        how = ("--model", str(checkpoint), "--output", str(bundle), "--precision", precision)
        subprocess.run([sys.executable, "-m", "export.convert", *how, *options], check=True)
    return bundle


def milliseconds(opened: Mapping[str, OpenBundle], frames: int, rounds: int) -> dict[str, list[float]]:
    """Time of talker and code predictor for a frame of one row, by name and round; the bundles take turns."""
    watches = {name: Stopwatch() for name in opened}
    timed = {name: timed_bundle(bundle, watches[name]) for name, bundle in opened.items()}
    synthesizers = {name: Synthesizer(bundle) for name, bundle in timed.items()}
    found: dict[str, list[float]] = {name: [] for name in opened}
    for seed in range(rounds + 1):
        for name, watch in watches.items():
            watch.seconds.clear()
            made = speak(timed[name], synthesizers[name], frames, seed).frames
            if seed:  # the first round is for warming up
                found[name].append(1e3 * (sum(watch.seconds["talker"]) + sum(watch.seconds["code predictor"])) / made)
    return found


def agreement(checkpoint: Path, bundles: Mapping[str, Path], texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How many greedy codes of each bundle equal PyTorch's, `equal` of `compared` for codebook 0 and for the others."""
    opened, any_bundle = open_checkpoint(str(checkpoint)), next(iter(bundles.values()))
    manifest = read_manifest(any_bundle)
    prompts, table = open_prompts(any_bundle, manifest), np.load(any_bundle / CODEC_TABLE)
    found: dict[str, dict[str, Any]] = {name: {} for name in bundles}
    for text in texts:
        expected = reference(opened, manifest, prompts, table, lambda done, total: None, text)
        for name, path in bundles.items():
            for codes, counts in measure(path, read_manifest(path), expected)["codes"].items():
                before = found[name].setdefault(codes, {"equal": 0, "compared": 0})
                found[name][codes] = {key: before[key] + counts[key] for key in before}
    return found


def words_wrong(bundle: Path, texts: list[str]) -> float:
    """Word error rate of what a server says with a bundle."""
    with speaking(bundle, ROWS) as client, ThreadPoolExecutor(ROWS) as pool:
        made = list(pool.map(lambda job: say(client, job[1], job[0]), enumerate(texts)))
    return word_error_rate(texts, ["" if audio is None else hear(audio, RATE) for audio in made])


def main() -> None:
    """Parse the options, convert, measure, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precisions", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", type=Path, default=EMBEDDED / "checkpoint", help="folder (default: %(default)s)"
    )
    parser.add_argument("--precision", nargs="+", default=PRECISIONS, help="which (default: %(default)s)")
    parser.add_argument("--bundles", type=Path, default=CACHE / "precisions", help="folder for the bundles")
    parser.add_argument("--texts", type=int, default=4, help="that codes are compared over (default: %(default)s)")
    parser.add_argument("--words", type=int, default=0, metavar="N", help="sentences to be recognised (default: none)")
    parser.add_argument("--frames", type=int, default=40, help="codec frames of a timed request (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of timed requests (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU kernels (default: %(default)s)")
    options, conversion = parser.parse_known_args()
    checkpoint = options.checkpoint.resolve()
    bundles = {one: bundle_of(checkpoint, one, options.bundles, conversion) for one in options.precision}
    held_out = HELD_OUT.read_text("utf-8").splitlines()
    equal = agreement(checkpoint, bundles, sentences(held_out, options.texts))
    opened = {
        name: open_bundle(path, provider="cpu", threads=options.threads, slots=1) for name, path in bundles.items()
    }
    times = milliseconds(opened, options.frames, options.rounds)
    first = options.precision[0]
    print(f"{checkpoint.name}, {options.texts} texts, {options.threads} threads; {machine()}\n")
    print(
        f"| precision | weights read a frame | talker + code predictor, ms a frame | times {first}'s | codebook 0 | "
        "other codebooks | word error rate |\n|---|---|---|---|---|---|---|"
    )
    for name, bundle in bundles.items():
        read = sum(one.total for one in frame_reads(read_manifest(bundle)) or [])
        ratio = median(one / to for one, to in zip(times[name], times[first], strict=True))
        codes = " | ".join(f"{counts['equal']} of {counts['compared']}" for counts in equal[name].values())
        wrong = f"{words_wrong(bundle, sentences(held_out, options.words)):.1%}" if options.words else "-"
        figures = f"{read / 1e6:.1f} MB | {median(times[name]):.1f} | {ratio:.2f} | {codes} | {wrong}"
        print(f"| {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
