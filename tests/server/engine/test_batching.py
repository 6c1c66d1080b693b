"""Rows that share every call: each is as if it were alone, whoever comes, goes, or stops reading."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from server.engine.bundle import OpenBundle
from server.engine.job import Job, Sampling
from server.engine.prefill import SLICE_POSITIONS
from server.engine.provider import open_bundle
from server.engine.synthesizer import CHUNK_RAMP
from server.engine.worker import Engine
from tests.bundles import RANDOM_BUNDLE
from tests.server.engine.rigs import Counted, RecordingTalker
from tests.server.running import PATIENCE_SECONDS

SAMPLING = Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0)
TEXTS = ["Late", "A rather longer sentence than the others.", "Two of three", "Hi", "And last of all"]
CHANGES: list[dict[str, float]] = [
    {"top_p": 0.8, "predictor_top_p": 0.9},
    {"temperature": 0.0, "predictor_temperature": 0.0},
    {"predictor_top_k": 3, "repetition_penalty": 1.4},
    {},
    {"temperature": 1.3, "top_k": 0},
]
FRAMES = [41, 55, 12, 30, 23]
SEEDS = [3, 1, 2, 0, 4]
KINDS = 5


@pytest.fixture(scope="module")
def bundle() -> OpenBundle:
    return open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=4)


class CodesOfAudio:
    """A codec decoder that knows which codes a chunk of audio was made of."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._codes: dict[bytes, np.ndarray] = {}

    def start(self) -> Any:
        return self._inner.start()

    def decode(self, codes: np.ndarray, states: Any) -> Any:
        waveform, after = self._inner.decode(codes, states)
        self._codes.update({row.tobytes(): row_codes for row, row_codes in zip(waveform, codes, strict=True)})
        return waveform, after

    def of(self, chunks: list[np.ndarray]) -> np.ndarray:
        """Codes `[frames, groups]` of a job's chunks."""
        return np.concatenate([self._codes[chunk.tobytes()] for chunk in chunks])


def job_of(engine: Engine, kind: int) -> Job:
    prompt = engine.prompt(TEXTS[kind], speaker="serena", language="auto", instruction=None)
    return Job(prompt, dataclasses.replace(SAMPLING, **CHANGES[kind]), SEEDS[kind], FRAMES[kind])


@contextmanager
def engine_of(bundle: OpenBundle, events: Counted | None = None) -> Iterator[Engine]:
    engine = Engine(bundle, max_queue=KINDS, events=events)
    try:
        yield engine
    finally:
        engine.close()


def audio_alone(engine: Engine, kind: int) -> list[np.ndarray]:
    job = job_of(engine, kind)
    engine.submit(job)
    return list(job)


def test_staggered_rows_have_the_codes_they_have_alone(bundle: OpenBundle) -> None:
    decoder = CodesOfAudio(bundle.codec_decoder)
    with engine_of(dataclasses.replace(bundle, codec_decoder=decoder)) as engine:
        alone = [audio_alone(engine, kind) for kind in range(KINDS)]
        together = [job_of(engine, kind) for kind in range(KINDS)]
        engine.submit(together[0])
        reader = iter(together[0])
        found = [[next(reader)]]
        for job in together[1:]:  # each comes a chunk later than the one before
            engine.submit(job)
            found[0] += [next(reader)]
        found[0] += reader
        found += [list(job) for job in together[1:]]
    for expected, chunks in zip(alone, found, strict=True):
        np.testing.assert_array_equal(decoder.of(chunks), decoder.of(expected))
        # Samples differ by rounding where rows share a call.
        np.testing.assert_allclose(np.concatenate(chunks), np.concatenate(expected), atol=1e-5)


def test_a_row_that_is_not_read_costs_no_call_and_loses_nothing(bundle: OpenBundle) -> None:
    events, talker = Counted(), RecordingTalker(bundle.talker)
    with engine_of(bundle) as engine:
        alone = [np.concatenate(audio_alone(engine, kind)) for kind in range(4)]
    with engine_of(dataclasses.replace(bundle, talker=talker), events) as engine:
        jobs = [job_of(engine, kind) for kind in range(4)]
        jobs[1].capacity = 3  # between the others, and read by nobody until they are done
        for job in jobs:
            engine.submit(job)
        for kind in (0, 2, 3, 1):
            if kind == 1:
                stopped_at = jobs[1].frames
                assert jobs[1].full
            np.testing.assert_allclose(np.concatenate(list(jobs[kind])), alone[kind], atol=1e-5)
    assert jobs[1].frames > stopped_at == sum(CHUNK_RAMP[:2])
    assert talker.advances <= events.counts["frame_made"], "a frame took more than one talker call"
    # A row that ends by itself has one step in which it makes no frame.
    assert sum(events.rows) == sum(job.frames + (job.frames < job.max_frames) for job in jobs)


class Watched:
    """A talker that notes what it is made to do: positions of a prefill's slice, or 0 for a frame. It waits with the
    first slice for `gate`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.calls: list[int] = []
        self.gate = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def prefill(self, slot: int, inputs_embeds: np.ndarray, past: int = 0) -> Any:
        self.gate.wait(PATIENCE_SECONDS)
        self.calls.append(len(inputs_embeds))
        return self._inner.prefill(slot, inputs_embeds, past)

    def advance(self, *arguments: Any) -> Any:
        self.calls.append(0)
        return self._inner.advance(*arguments)

    def between_frames(self) -> list[list[int]]:
        """The slices before the first frame, between the first and the second, and so on."""
        groups: list[list[int]] = [[]]
        for positions in self.calls:
            groups.append([]) if not positions else groups[-1].append(positions)
        return groups


def test_short_prompts_that_come_at_once_share_a_frame(bundle: OpenBundle) -> None:
    talker = Watched(bundle.talker)
    with engine_of(dataclasses.replace(bundle, talker=talker)) as engine:
        jobs = [job_of(engine, kind) for kind in range(4)]
        for job in jobs:
            engine.submit(job)
        talker.gate.set()
        for job in jobs:
            list(job)
    first, second, *_ = talker.between_frames()
    # The engine may have begun with the first job alone, which then has its frame after the others' slices.
    assert sum(first) + sum(second) + 3 * jobs[0].prompt.prefix == sum(len(job.prompt) for job in jobs)


def test_a_long_prompt_holds_up_neither_rows_nor_short_prompts(bundle: OpenBundle) -> None:
    talker = Watched(bundle.talker)
    with engine_of(dataclasses.replace(bundle, talker=talker)) as engine:
        talker.gate.set()
        alone = [np.concatenate(audio_alone(engine, kind)) for kind in (1, 3)]
        talker.calls.clear()
        text = "A sentence of some length, said again and again. " * 40
        long = Job(engine.prompt(text, speaker="serena", language="auto", instruction=None), SAMPLING, 1, 2)
        assert len(long.prompt) > 3 * SLICE_POSITIONS
        running, short = job_of(engine, 1), job_of(engine, 3)
        engine.submit(running)
        reader = iter(running)
        chunks = [next(reader)]
        engine.submit(long)
        engine.submit(short)
        heard = iter(short)
        first = next(heard)
        assert not long.frames, "the short one came later and did not wait"
        np.testing.assert_allclose(np.concatenate([first, *heard]), alone[1], atol=1e-5)
        chunks += reader
        np.testing.assert_allclose(np.concatenate(chunks), alone[0], atol=1e-5)
        list(long)
    assert max(sum(slices) for slices in talker.between_frames()) <= SLICE_POSITIONS


def test_a_prompt_that_nobody_waits_for_any_more_is_left_where_it_is(bundle: OpenBundle) -> None:
    events, talker = Counted(), Watched(bundle.talker)
    with engine_of(dataclasses.replace(bundle, talker=talker), events) as engine:
        text = "A sentence of some length, said again and again. " * 40
        long = Job(engine.prompt(text, speaker="serena", language="auto", instruction=None), SAMPLING, 1, 2)
        engine.submit(long)
        long.cancel()
        talker.gate.set()
        audio_alone(engine, 3)
    assert sum(talker.calls) < len(long.prompt)
    assert events.counts["cancelled"] == 1
