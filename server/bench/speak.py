"""Requests made by the classes that serve, on the clock and without a server."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from server.engine.bundle import OpenBundle
from server.engine.job import Job, PcmChunk, Sampling
from server.engine.synthesizer import CHUNK_RAMP, Synthesizer

TEXT = "The early train was late again, so we shared a taxi and talked about the weather all the way."
RAMP_FRAMES, STEADY_CHUNK = sum(CHUNK_RAMP), CHUNK_RAMP[-1]
"""Frames until every size of chunk has been decoded, and frames that are decoded at a time from then on."""


class Stopwatch:
    """Wraps calls and keeps the seconds each took, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, timed under `name`."""

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds[name].append(time.perf_counter() - start)

        return timed


class _Timed:
    """Another object with some of its methods timed."""

    def __init__(self, inner: Any, watch: Stopwatch, **methods: str) -> None:
        self._inner = inner
        for method, name in methods.items():
            setattr(self, method, watch.wrap(name, getattr(inner, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def timed_bundle(bundle: OpenBundle, watch: Stopwatch) -> OpenBundle:
    """The bundle with its graph calls timed."""
    timed: dict[str, Any] = {
        "talker": _Timed(bundle.talker, watch, advance="talker"),
        "code_predictor": _Timed(bundle.code_predictor, watch, run="code predictor"),
        "codec_decoder": _Timed(bundle.codec_decoder, watch, decode="codec decoder"),
    }
    return dataclasses.replace(bundle, **timed)


@dataclass(frozen=True)
class Run:
    """Some rows side by side: seconds until they are prefilled, to the first audio and to the last, codec frames made
    by all of them together, seconds of each step, which is a frame of every row."""

    prefill: float
    first_audio: float
    wall: float
    frames: int
    step_seconds: list[float]

    @property
    def steady_seconds(self) -> float:
        """Mean seconds of a step once audio is decoded in chunks of full size, over whole chunks; of a run that is
        too short for one, the mean of all steps."""
        whole = (len(self.step_seconds) - RAMP_FRAMES) // STEADY_CHUNK * STEADY_CHUNK
        steady = self.step_seconds[RAMP_FRAMES : RAMP_FRAMES + whole] if whole > 0 else self.step_seconds
        return sum(steady) / len(steady)

    @property
    def frames_per_second(self) -> float:
        """Codec frames that all rows made in a second, without the prefill."""
        return self.frames / sum(self.step_seconds)


class _StampedJob(Job):
    """A job that keeps when each chunk of audio came."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.stamps: list[float] = []

    def put(self, pcm: PcmChunk, frames: int) -> None:
        self.stamps.append(time.perf_counter())
        super().put(pcm, frames)


def speak(
    bundle: OpenBundle,
    synthesizer: Synthesizer,
    frames: int,
    seed: int,
    *,
    rows: int = 1,
    between: Callable[[], object] = lambda: None,
) -> Run:
    """Say `TEXT` in some rows side by side, until the first of them ends.

    Args:
        bundle: with as many slots.
        synthesizer: of this bundle; it knows the prefixes of what it has said before.
        frames: codec frames of a row, at most.
        seed: different ones give different speech.
        rows: how many; they start together.
        between: runs after every step, off the clock.
    """
    sampling = Sampling.of(bundle.manifest.generation)
    speaker = next(iter(bundle.manifest.speakers), None)
    start = time.perf_counter()
    prompt = bundle.prompts.build(TEXT, speaker=speaker, language="auto", instruction=None)
    jobs = [_StampedJob(prompt, sampling, seed * rows + row, frames, frames + STEADY_CHUNK) for row in range(rows)]
    running = [synthesizer.start(job, slot) for slot, job in enumerate(jobs)]
    prefill = wall = time.perf_counter() - start
    first_audio, seconds = 0.0, []
    while not any(row.finished for row in running):
        start = time.perf_counter()
        synthesizer.frame(running)
        seconds.append(time.perf_counter() - start)
        first_audio = first_audio or wall + jobs[0].stamps[0] - start
        wall += seconds[-1]
        between()
    return Run(prefill, first_audio, wall, sum(job.frames for job in jobs), seconds)
