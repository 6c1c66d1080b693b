"""What a cloned voice costs: `python -m benchmarks.clone`.

Encodes recordings of several lengths, and takes the time from a job to its first audio: of a speaker that is built into
a CustomVoice bundle, and of voices of a Base bundle, when they are new to the engine and when it knows them. All of
these take turns, because machines are noisy: figures of one run may be compared. Without bundles it measures full-size
random ones, which it makes and converts once under `.cache/benchmarks`.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from server.bench.measure import rss
from server.engine.job import Job, Sampling
from server.engine.prompt import Prompt
from server.engine.reference import SAMPLE_RATE, Reference
from server.engine.worker import Engine
from server.manifest import Precision

TEXT = "The ferry left at noon, and nobody was late."
WORDS = "A recording of some seconds, of which these are the words."
FRAMES = 12
"""Of each job: enough to see what a steady frame takes."""
SPEAKER, ALONE, NEW, SAVED = "built-in speaker", "voice alone", "new recording", "saved recording"


@dataclass(frozen=True)
class Costs:
    """What `measure` found.

    Attributes:
        encoded: by seconds of a recording, those that each round took for it with its text, and without.
        first: by kind of voice and seconds of its recording, the seconds to the first audio of each round.
        frame: the same, seconds of a steady frame.
        memory: of the process in bytes, before a recording is encoded, after all were, and at most until then.
    """

    encoded: dict[float, list[tuple[float, float]]]
    first: dict[tuple[str, float], list[float]]
    frame: dict[tuple[str, float], list[float]]
    memory: tuple[int, int, int] | None


def recording(seconds: float) -> NDArray[np.float32]:
    """Noise that swells and fades; what is in a recording makes no difference to its cost."""
    time_axis = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(0).normal(scale=0.1, size=len(time_axis))
    return np.asarray(noise * np.sin(9 * time_axis) ** 2, np.float32)


def another(voice: Reference, number: int) -> Reference:
    """A voice that no cache knows, of the same sizes."""
    speaker = voice.speaker * np.float32(1 + number / 1024)
    return Reference(speaker, None if voice.codes is None else np.roll(voice.codes, number, axis=0), voice.text)


def measure(base: Path, speakers: Path, *, threads: int, seconds: Sequence[float], rounds: int) -> Costs:
    """Measure a Base bundle beside a CustomVoice bundle of the same size, on the CPU.

    Args:
        base: folder of the first.
        speakers: folder of the second.
        threads: of the CPU kernels.
        seconds: lengths of the recordings.
        rounds: how often each thing is done.
    """
    cloning = Engine.load(base, provider="cpu", threads=threads, max_rows=1, max_queue=1)
    before = rss()
    encoded: dict[float, list[tuple[float, float]]] = defaultdict(list)
    voices: dict[float, Reference] = {}
    for _ in range(rounds):
        for length in seconds:
            samples, taken = recording(length), []
            for text in (WORDS, None):
                began = time.perf_counter()
                voice = cloning.encode_reference(samples, text)
                taken.append(time.perf_counter() - began)
                if text is not None:
                    voices[length] = voice
            encoded[length].append((taken[0], taken[1]))
    after = rss()
    memory = (before.now, after.now, after.peak) if before and after else None
    built_in = Engine.load(speakers, provider="cpu", threads=threads, max_rows=1, max_queue=1)
    first: dict[tuple[str, float], list[float]] = defaultdict(list)
    frame: dict[tuple[str, float], list[float]] = defaultdict(list)
    try:
        for turn in range(rounds + 1):
            for kind, length, engine, prompt in _turn(cloning, built_in, voices, turn):
                to_first, steady = _speak(engine, prompt, turn)
                if turn:  # the first turn makes the voices known that are to be
                    first[kind, length].append(to_first)
                    frame[kind, length].append(steady)
    finally:
        cloning.close()
        built_in.close()
    return Costs(dict(encoded), dict(first), dict(frame), memory)


def _turn(
    cloning: Engine, built_in: Engine, voices: dict[float, Reference], turn: int
) -> Iterator[tuple[str, float, Engine, Prompt]]:
    way: dict[str, Any] = {"language": "english", "instruction": None}
    speaker = next(iter(built_in.manifest.speakers))
    yield SPEAKER, 0, built_in, built_in.prompt(TEXT, speaker=speaker, **way)
    alone = replace(next(iter(voices.values())), codes=None, text=None)
    yield ALONE, 0, cloning, cloning.prompt(TEXT, speaker=None, reference=alone, **way)
    for length, voice in voices.items():
        yield SAVED, length, cloning, cloning.prompt(TEXT, speaker=None, reference=voice, **way)
        yield NEW, length, cloning, cloning.prompt(TEXT, speaker=None, reference=another(voice, 1 + turn), **way)


def _speak(engine: Engine, prompt: Prompt, seed: int) -> tuple[float, float]:
    """Seconds to the first audio, and a frame from then on."""
    job = Job(prompt, Sampling.of(engine.manifest.generation), seed, FRAMES)
    began = time.perf_counter()
    engine.submit(job)
    chunks = iter(job)
    frames = len(next(chunks)) // engine.manifest.sizes.codec.samples_per_frame
    first = time.perf_counter()
    frames = sum(len(chunk) for chunk in chunks) // engine.manifest.sizes.codec.samples_per_frame
    return first - began, (time.perf_counter() - first) / max(frames, 1)


def report(costs: Costs) -> str:
    """Write the two tables in Markdown."""
    lines = ["| recording | encoded with its text | voice alone | the first, of real time |", "|---|---|---|---|"]
    for length, taken in costs.encoded.items():
        both, alone = (median(column) for column in zip(*taken, strict=True))
        lines.append(f"| {length:g} s | {both:.2f} s | {alone:.2f} s | {both / length:.2f} |")
    lines += ["", "| voice | recording | TTFA | beyond the built-in speaker's |", "|---|---|---|---|"]
    known = costs.first[SPEAKER, 0]
    for (kind, length), rounds in costs.first.items():
        frames = median(
            (one - other) / steady for one, other, steady in zip(rounds, known, costs.frame[kind, length], strict=True)
        )
        of = f"{length:g} s" if length else ""
        lines.append(f"| {kind} | {of} | {median(rounds):.3f} s | {frames:+.1f} frames |")
    lines += ["", f"A steady frame takes {1e3 * median(costs.frame[SPEAKER, 0]):.0f} ms."]
    if costs.memory:
        before, after, peak = (size / 1e9 for size in costs.memory)
        lines.append(f"RSS of the Base engine: {before:.2f} GB, {after:.2f} after all was encoded, at most {peak:.2f}.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clone", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="of a Base checkpoint (default: a random one of full size)")
    parser.add_argument("--speakers", type=Path, help="bundle of a CustomVoice checkpoint of the same size (likewise)")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8", help="of the random ones")
    parser.add_argument("--seconds", type=float, nargs="+", default=[3, 10, 30], help="(default: 3 10 30)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU kernels (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.bundle is None or options.speakers is None:
        from benchmarks.checkpoints import full_size_bundle  # needs what the tests need

        options.bundle = options.bundle or full_size_bundle("0.6b-base", options.precision)
        options.speakers = options.speakers or full_size_bundle("0.6b", options.precision)
    found = measure(
        options.bundle, options.speakers, threads=options.threads, seconds=options.seconds, rounds=options.rounds
    )
    print(report(found))


if __name__ == "__main__":
    main()
