"""Times faster than the official package: `python -m benchmarks.official --checkpoint FOLDER --bundle FOLDER ...`.

The official `qwen-tts` package (fp32, the same checkpoint, text and frame count) and the bundles take turns in one run,
so that the ratios hold on a noisy machine. Made for random checkpoints, which never end by themselves.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.floor import FloorProbe, cache_reads, frame_reads
from benchmarks.stopwatch import Stopwatch, timed_bundle
from server.bench.report import machine
from server.bench.speak import speak, text_of
from server.engine.bundle import OpenBundle
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.graphs.cores import thread_count
from tests.oracle import Official

DECODED = 48
"""Frames that the official decoder decodes in one go; ours streams them in its own chunks."""


class OfficialTimes:
    """Runs the official package, timed by frame."""

    def __init__(self, folder: Path) -> None:
        self.official = Official(folder)
        self.frame_seconds: list[float] = []
        self.decode_seconds: list[float] = []
        self.request_seconds: list[float] = []
        self.official.talker.forward = self._timed(self.official.talker.forward)

    def _timed(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            output = forward(*arguments, **named)
            embeds = named.get("inputs_embeds")
            if embeds is None or embeds.shape[1] == 1:  # a frame, not the prefill
                self.frame_seconds.append(time.perf_counter() - start)
            return output

        return timed

    def run(self, text: str, speaker: str | None, frames: int) -> None:
        """Run one request: codes, then the waveform."""
        start = time.perf_counter()
        codes = self.official.codes(text, speaker=speaker, frames=frames, single_thread=False)
        self.official.waveform(codes)
        self.request_seconds.append(time.perf_counter() - start)
        many = torch.from_numpy(np.resize(codes, (DECODED, codes.shape[1])).T[None].copy())
        with torch.inference_mode():
            start = time.perf_counter()
            self.official.decoder(many)
            self.decode_seconds.append((time.perf_counter() - start) / DECODED)


class BundleTimes:
    """Runs a bundle, timed by frame, with the floor of its own weights and of the KV cache in the middle of a run."""

    def __init__(self, folder: Path, threads: int, tokens: int, frames: int) -> None:
        self.bundle: OpenBundle = open_bundle(folder, provider="cpu", threads=threads, slots=1)
        reads = frame_reads(self.bundle.manifest)
        if reads is None:
            raise SystemExit(f"{folder}: its manifest does not say what a frame reads; convert the checkpoint again")
        self.text, self.frames = text_of(self.bundle.prompts, tokens), frames
        self.watch = Stopwatch()
        self.synthesizer = Synthesizer(timed_bundle(self.bundle, self.watch))
        warm = speak(self.bundle, self.synthesizer, frames, 0, text=self.text)
        self.watch.seconds.clear()
        self.probe = FloorProbe(reads, threads, cache_reads(self.bundle.manifest, warm.middle))
        self.request_seconds: list[float] = []
        self.first_audio: list[float] = []
        self.new_voice_first_audio: list[float] = []

    def run(self) -> None:
        """Run one request, with a probe of the floor after every frame."""
        new_voice = speak(self.bundle, Synthesizer(self.bundle), 1, 1, text=self.text)
        self.new_voice_first_audio.append(new_voice.first_audio)
        done = speak(self.bundle, self.synthesizer, self.frames, 1, text=self.text, between=self.probe.run)
        self.request_seconds.append(done.wall)
        self.first_audio.append(done.first_audio)

    @property
    def codes_seconds(self) -> float:
        """Median seconds of talker and code predictor a frame."""
        return statistics.median(self.watch.seconds["talker"]) + statistics.median(self.watch.seconds["code predictor"])


def measure(checkpoint: Path, bundles: list[Path], tokens: int, frames: int, rounds: int, threads: int) -> str:
    """Run everything in turns and return the table."""
    threads = thread_count(threads)
    torch.set_num_threads(threads)
    official = OfficialTimes(checkpoint)
    ours = [BundleTimes(folder, threads, tokens, frames) for folder in bundles]
    speaker = next(iter(ours[0].bundle.manifest.speakers), None)
    for _ in range(rounds):
        official.run(ours[0].text, speaker, frames)
        for one in ours:
            one.run()
    codes = statistics.median(official.frame_seconds)
    decode = statistics.median(official.decode_seconds)
    whole = statistics.median(official.request_seconds)
    lines = [
        f"{tokens} tokens and {frames} frames a request, {rounds} rounds, {threads} threads; {machine()}",
        "",
        "| engine | talker + code predictor, ms a frame | times faster | against its floor | codec decoder, ms a frame "
        "| times faster | request, s | times faster | TTFA, own frames: voice used before / not yet |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| official fp32 | {1e3 * codes:.0f} | 1 | | {1e3 * decode:.0f} | 1 | {whole:.1f} | 1 | |",
    ]
    for one in ours:
        made = frames * rounds
        decoder = sum(one.watch.seconds["codec decoder"]) / made
        request_seconds = statistics.median(one.request_seconds)
        own_frame = one.codes_seconds + decoder
        floor = statistics.median(one.probe.seconds[1])
        lines.append(
            f"| {one.bundle.manifest.precision} | {1e3 * one.codes_seconds:.0f} | {codes / one.codes_seconds:.1f} "
            f"| {one.codes_seconds / floor:.2f} | {1e3 * decoder:.0f} | {decode / decoder:.1f} "
            f"| {request_seconds:.1f} | {whole / request_seconds:.1f} "
            f"| {statistics.median(one.first_audio) / own_frame:.1f} "
            f"/ {statistics.median(one.new_voice_first_audio) / own_frame:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.official", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="that the bundles were made of")
    parser.add_argument("--bundle", type=Path, action="append", required=True, help="folder; may be given again")
    parser.add_argument("--frames", type=int, default=100, help="codec frames a request (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=60, help="of a request's text (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="requests of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each engine (default: %(default)s)")
    options = parser.parse_args()
    print(measure(options.checkpoint, options.bundle, options.tokens, options.frames, options.rounds, options.threads))


if __name__ == "__main__":
    main()
