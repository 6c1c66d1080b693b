"""The embedded model on another processor than this one: opens it in an emulator and compares what both say.

The embedded model computes in 8 bits, which each kernel rounds in its own way, so that sooner or later another code is
drawn than here. The speech after it is another one of the same words, which Whisper writes down for both.

`python -m benchmarks.processors --cpu Haswell` needs QEMU's user emulation (Debian's package qemu-user) and takes some
minutes. The emulated processor has the instructions of its name and no more, so that ONNX Runtime and NumPy take the
kernels that they would take there. Its speed says nothing. `--arm64` emulates an Arm Cortex-A76, with
another Python and the wheels for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import arm64

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "models" / "qwen3_tts_tiny"
TEXTS = (
    "The train leaves at seven in the morning.",
    "She found the old book under the table.",
    "What time is it?",
)
SEED = 1
RATE = 24_000
MAX_FRAMES = 100


def speak(output: Path) -> None:
    """Say `TEXTS` with the embedded model; write codes `[frames, groups]` and samples of each, and the CPU's flags."""
    from server.engine.job import Job, Sampling
    from server.engine.provider import open_bundle
    from server.engine.synthesizer import Synthesizer

    bundle = open_bundle(BUNDLE, provider="cpu", threads=1, slots=1)
    heard: list[NDArray[Any]] = []
    decode = bundle.codec_decoder.decode

    def listen(codes: NDArray[np.int64], states: Any) -> Any:
        heard.append(codes[0])
        return decode(codes, states)

    decoder: Any = bundle.codec_decoder
    decoder.decode = listen
    sampling = Sampling.of(bundle.manifest.generation)
    synthesizer = Synthesizer(dataclasses.replace(bundle, codec_decoder=decoder))
    speaker = next(iter(bundle.manifest.speakers))
    found: dict[str, Any] = {}
    for number, text in enumerate(TEXTS):
        prompt = bundle.prompts.build(text, speaker=speaker, language="english", instruction=None)
        job = Job(prompt, sampling, SEED, MAX_FRAMES, MAX_FRAMES)
        row = synthesizer.start(job, 0)
        while not row.finished:
            synthesizer.frame([row])
        job.finish()
        found[f"samples{number}"] = np.concatenate(list(job))
        found[f"codes{number}"] = np.concatenate(heard)
        heard.clear()
    np.savez(output, features=np.array(_features()), **found)


def _features() -> str:
    """What NumPy finds the processor to have, which asks it as ONNX Runtime does."""
    found: dict[str, Any] = np.show_config(mode="dicts")  # type: ignore[assignment]
    return " ".join(found["SIMD Extensions"]["found"])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One text, said here and there: `frames` made by each, frames `equal` from the first on, the largest difference of
    the samples of these relative to the loudest, and the words that are `heard` in each."""

    text: str
    frames: tuple[int, int]
    equal: int
    difference: float
    heard: tuple[str, str]


def compare(here: dict[str, NDArray[Any]], there: dict[str, NDArray[Any]]) -> list[Comparison]:
    """Compare what `speak` has written, text by text."""
    from benchmarks.recogniser import hear, normal

    rows = []
    for number, text in enumerate(TEXTS):
        codes = here[f"codes{number}"], there[f"codes{number}"]
        samples = here[f"samples{number}"], there[f"samples{number}"]
        common = min(map(len, codes))
        differing = np.flatnonzero((codes[0][:common] != codes[1][:common]).any(axis=1))
        equal = int(differing[0]) if len(differing) else common
        wanted, found = (each[: equal * (len(samples[0]) // len(codes[0]))] for each in samples)
        difference = float(np.abs(wanted - found).max(initial=0.0) / np.abs(samples[0]).max())
        heard = normal(hear(samples[0], RATE)), normal(hear(samples[1], RATE))
        rows.append(Comparison(text, (len(codes[0]), len(codes[1])), equal, difference, heard))
    return rows


def emulated(options: argparse.Namespace) -> tuple[str, list[str], dict[str, str]]:
    """Return the name of the emulated processor, the command that runs a Python on it, and the variables it needs."""
    if options.arm64:
        return f"arm64, {arm64.CPU}", *arm64.command()
    emulator = shutil.which(options.emulator)
    if emulator is None:
        sys.exit(f"{options.emulator} is not installed: apt-get install qemu-user")
    return options.cpu, [emulator, "-cpu", options.cpu, sys.executable], {}


def main() -> None:
    """Run both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="Haswell", help="as `qemu-x86_64 -cpu help` lists them (%(default)s: AVX2)")
    parser.add_argument("--emulator", default="qemu-x86_64", help="QEMU's user emulation (%(default)s)")
    parser.add_argument("--arm64", action="store_true", help="emulate an Arm processor instead")
    parser.add_argument("--speak", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.speak:
        speak(options.speak)
        return
    name, there, variables = emulated(options)
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for number, (python, more) in enumerate((([sys.executable], {}), (there, variables))):
            output = Path(folder, f"{number}.npz")
            # The emulator has no kernel of its own: OpenBLAS must ask the processor that it is given.
            kept = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
            command = [*python, "-m", "benchmarks.processors", "--speak", str(output)]
            subprocess.run(command, check=True, cwd=ROOT, env={**kept, **more})
            results.append(dict(np.load(output)))
    for where, found in zip(("native", name), results, strict=True):
        print(f"{where}: {found['features']}")
    print(
        "\n| text | frames here / there | equal frames at the beginning | largest difference of their samples | "
        "recognised here / there |"
    )
    print("|---|---|---|---|---|")
    for row in compare(*results):
        frames, heard = (" / ".join(map(str, pair)) for pair in (row.frames, row.heard))
        print(f"| {row.text} | {frames} | {row.equal} | {row.difference:.1e} of the loudest sample | {heard} |")


if __name__ == "__main__":
    main()
