"""Speaks with an open bundle on the clock, by the classes that the server speaks with, and without a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from server.engine.bundle import OpenBundle
from server.engine.job import Job, PcmChunk, Sampling
from server.engine.prompt import PromptBuilder
from server.engine.synthesizer import CHUNK_RAMP, Synthesizer

TEXT = "The early train was late again, so we shared a taxi and talked about the weather all the way."
RAMP_FRAMES = sum(CHUNK_RAMP)
"""Frames until a chunk of every size has been decoded."""
STEADY_CHUNK = CHUNK_RAMP[-1]
"""Frames that are decoded at a time from then on."""


@dataclass(frozen=True)
class Run:
    """Times of rows that speak side by side, in seconds of wall clock.

    Attributes:
        prefill: from the start until all prompts are prefilled.
        first_audio: from the start until the first row's first audio.
        wall: from the start until the end.
        frames: codec frames that all rows made together.
        step_seconds: what each step took; a step makes one frame of every row.
        positions: of a row's prompt.
    """

    prefill: float
    first_audio: float
    wall: float
    frames: int
    step_seconds: list[float]
    positions: int

    @property
    def middle(self) -> float:
        """Positions behind which the frame in the middle was made."""
        return self.positions + len(self.step_seconds) / 2

    @property
    def steady_seconds(self) -> float:
        """Mean seconds of a step once audio is decoded in chunks of full size, over whole chunks.

        If the run is too short for one such chunk, it is the mean of all steps.
        """
        whole = (len(self.step_seconds) - RAMP_FRAMES) // STEADY_CHUNK * STEADY_CHUNK
        steady = self.step_seconds[RAMP_FRAMES : RAMP_FRAMES + whole] if whole > 0 else self.step_seconds
        return sum(steady) / len(steady)

    @property
    def frames_per_second(self) -> float:
        """Codec frames that all rows made in a second, without the prefill."""
        return self.frames / sum(self.step_seconds)


class TimedJob(Job):
    """A job that notes when each chunk of audio came, and how many frames it had."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.heard: list[tuple[float, int]] = []

    def put(self, pcm: PcmChunk, frames: int) -> None:
        self.heard.append((time.perf_counter(), frames))
        super().put(pcm, frames)


def text_of(prompts: PromptBuilder, tokens: int) -> str:
    """The words of `TEXT`, again and again, until they have at least so many tokens."""
    words, text = cycle(TEXT.split()), ""
    while prompts.count_tokens(text) < tokens:
        text = f"{text} {next(words)}".lstrip()
    return text


def speak(
    bundle: OpenBundle,
    synthesizer: Synthesizer,
    frames: int,
    seed: int,
    *,
    rows: int = 1,
    text: str = TEXT,
    between: Callable[[], object] = lambda: None,
) -> Run:
    """Speak a text in some rows side by side, until the first of them ends.

    Args:
        bundle: a bundle with at least as many slots.
        synthesizer: of this bundle; it keeps the prefixes of the voices that it has spoken with.
        frames: codec frames of a row at most.
        seed: different seeds give different speech.
        rows: how many rows start together.
        text: what each of them says.
        between: is called after every step, off the clock.
    """
    sampling = Sampling.of(bundle.manifest.generation)
    speaker = next(iter(bundle.manifest.speakers), None)
    start = time.perf_counter()
    prompt = bundle.prompts.build(text, speaker=speaker, language="auto", instruction=None)
    jobs = [TimedJob(prompt, sampling, seed * rows + row, frames, frames + STEADY_CHUNK) for row in range(rows)]
    running = [synthesizer.start(job, slot) for slot, job in enumerate(jobs)]
    prefill = wall = time.perf_counter() - start
    first_audio, seconds = 0.0, []
    while not any(row.finished for row in running):
        start = time.perf_counter()
        synthesizer.frame(running)
        seconds.append(time.perf_counter() - start)
        first_audio = first_audio or wall + jobs[0].heard[0][0] - start
        wall += seconds[-1]
        between()
    return Run(prefill, first_audio, wall, sum(job.frames for job in jobs), seconds, len(prompt))
