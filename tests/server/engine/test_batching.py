"""Rows that share every call: each is as if it were alone, whoever comes, goes, or stops reading."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from server.engine.bundle import OpenBundle, open_bundle
from server.engine.job import Job, Sampling
from server.engine.synthesizer import CHUNK_RAMP
from server.engine.worker import Engine
from tests.bundles import RANDOM_BUNDLE
from tests.server.engine.rigs import Counted, RecordingTalker

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
    assert talker.decodes <= events.counts["frame_made"], "a frame took more than one talker call"
    # A row that ends by itself has one step in which it makes no frame.
    assert sum(events.rows) == sum(job.frames + (job.frames < job.max_frames) for job in jobs)


def test_a_prefill_a_frame_at_most(bundle: OpenBundle) -> None:
    """A row under way loses no more than one prefill between two frames, however many jobs come at once."""
    order: list[str] = []

    class Noted(Counted):
        def prefilled(self, seconds: float) -> None:
            order.append("prefill")

        def frame_made(self, seconds: float, rows: int) -> None:
            order.append("frame")

    with engine_of(bundle, Noted()) as engine:
        jobs = [job_of(engine, kind) for kind in range(KINDS)]
        for job in jobs:
            engine.submit(job)
        for job in jobs:
            list(job)
    assert order.count("prefill") == KINDS
    assert "prefill prefill" not in " ".join(order)
