"""What lies between requests that come at once and their first sound: `python -m benchmarks.first_sound`.

Rows start together, as the engine's thread starts them: all prompts are prefilled, then all rows make their first
frame, which is decoded at once. The parts are timed, in milliseconds and in frames of one row alone in the middle of
its speech, with a voice that has been used before. Then it says how much of that sound each encoder gives out, and how
soon the rest of it.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from statistics import median

import av
import numpy as np

from benchmarks.stopwatch import Stopwatch, timed_bundle
from server.audio.encoders import make_encoder
from server.audio.formats import FORMATS
from server.audio.joins import Joiner
from server.bench.report import machine
from server.bench.speak import RAMP_FRAMES, STEADY_CHUNK, TEXT, TimedJob, speak
from server.engine.bundle import OpenBundle
from server.engine.job import Sampling
from server.engine.provider import open_bundle
from server.engine.synthesizer import CHUNK_RAMP, Synthesizer
from server.graphs.cores import thread_count
from tests.bundles import TINY_BUNDLE

PARTS = ("prefill", "code predictor", "codec decoder")


def parts_of(bundle: OpenBundle, watch: Stopwatch, synthesizer: Synthesizer, rows: int) -> dict[str, float]:
    """Seconds of each part for so many rows that start at once."""
    watch.seconds.clear()
    prompt = bundle.prompts.build(
        TEXT, speaker=next(iter(bundle.manifest.speakers), None), language="auto", instruction=None
    )
    jobs = [TimedJob(prompt, Sampling.of(bundle.manifest.generation), row, 2) for row in range(rows)]
    prefill = watch.wrap("prefill", synthesizer.start)
    first = watch.wrap("all", lambda: synthesizer.frame([prefill(job, slot) for slot, job in enumerate(jobs)]))
    first()
    found = {name: sum(watch.seconds[name]) for name in PARTS}
    return found | {"talker, behind the sound": sum(watch.seconds["talker"]), "all": watch.seconds["all"][0]}


def table(folder: Path, numbers: list[int], requests: int, threads: int) -> str:
    """The rows of a Markdown table."""
    bundle = open_bundle(folder, provider="cpu", threads=threads, slots=max(numbers))
    watch = Stopwatch()
    synthesizer = Synthesizer(timed_bundle(bundle, watch))
    frames = RAMP_FRAMES + STEADY_CHUNK
    steady = median(speak(bundle, synthesizer, frames, seed).steady_seconds for seed in range(requests))
    lines = ["| rows | part | ms | in frames of one row |", "|---|---|---|---|"]
    for rows in numbers:
        runs = [parts_of(bundle, watch, synthesizer, rows) for _ in range(requests + 1)][1:]
        for name in runs[0]:
            seconds = median(run[name] for run in runs)
            lines.append(f"| {rows} | {name} | {1e3 * seconds:.0f} | {seconds / steady:.2f} |")
    return "\n".join(lines)


def heard_of(audio_format: str, rate: int, samples: int) -> list[int]:
    """Milliseconds of sound that a player has of a stream once each chunk of the ramp has been made."""
    joiner, encoder, body, found = Joiner(rate), make_encoder(audio_format, rate), b"", []  # type: ignore[arg-type]
    sound = 0.1 * np.sin(2 * np.pi * 440 / rate * np.arange(samples * sum(CHUNK_RAMP), dtype=np.float32))
    start = 0
    for chunk in CHUNK_RAMP:
        end = start + chunk * samples
        body += encoder.encode(joiner.feed(sound[start:end], last=True))
        found.append(round(1e3 * _playable(audio_format, body, rate)))
        start = end
    encoder.close()
    return found


def _playable(audio_format: str, body: bytes, rate: int) -> float:
    """Seconds of sound in the beginning of a file."""
    if audio_format == "pcm":
        return len(body) / 2 / rate
    name = {"opus": "ogg"}.get(audio_format, audio_format)
    seconds = 0.0
    try:
        with av.open(io.BytesIO(body), "r", format=name) as file:
            for frame in file.decode(audio=0):
                seconds += frame.samples / frame.sample_rate
    except av.error.FFmpegError:  # it ends within a block
        pass
    return seconds


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_sound", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bundle", type=Path, default=TINY_BUNDLE, help="folder of a bundle (default: the embedded one)"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8], help="that start at once")
    parser.add_argument("--requests", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU kernels (default: %(default)s)")
    options = parser.parse_args()
    threads = thread_count(options.threads)
    print(f"{options.bundle.name}, {threads} threads; {machine()}\n")
    print(table(options.bundle, options.rows, options.requests, threads))
    print(
        f"\n| format | ms of sound once {', '.join(map(str, np.cumsum(CHUNK_RAMP)))} frames of 80 ms are made |"
        "\n|---|---|"
    )
    for audio_format in FORMATS:
        print(f"| {audio_format} | {' / '.join(map(str, heard_of(audio_format, 24_000, 1920)))} |")


if __name__ == "__main__":
    main()
