"""Rows in a GPU's memory and with its frame give what rows of the CPU give, code for code, whatever happens.

The host is the device here, and the graphs compute in float32, so that nothing is rounded otherwise.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from server.engine import guard
from server.engine import synthesizer as synthesizer_module
from server.engine.bundle import OpenBundle
from server.engine.job import Job, JobError, Sampling
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.engine.worker import Engine
from server.graphs.frame_state import Controls, RowOutput
from tests.server.engine.rigs import Counted, Wrapped
from tests.server.engine.test_batching import CodesOfAudio
from tests.server.running import PATIENCE_SECONDS
from tests.unrolled import on_a_device

SAMPLING = Sampling(0.9, 50, 1.0, 1.5, 0.9, 50, 1.0)
"""With a penalty that is felt: what it counts must not be forgotten."""
Bundles = tuple[OpenBundle, OpenBundle, OpenBundle]
SLOTS = 4
CHANGES: list[dict[str, float]] = [
    {"top_p": 0.8, "predictor_top_p": 0.9},
    {"temperature": 0.0, "predictor_temperature": 0.0},
    {"predictor_top_k": 3, "repetition_penalty": 2.0},
    {},
    {"temperature": 1.3, "top_k": 0},
]
FRAMES = [41, 55, 12, 30, 23]


@pytest.fixture(scope="module")
def bundles(bundle_of: Callable[..., Path], unrolled_frame_of: Callable[[str], Path]) -> Bundles:
    """The CPU's, a GPU's, and the latter with audio decoded beside the talker; rows end by themselves at times."""
    folder = bundle_of("tiny")
    device = on_a_device(folder, unrolled_frame_of("tiny"), SLOTS)
    host = open_bundle(folder, provider="cpu", threads=1, slots=SLOTS)
    return host, device, dataclasses.replace(device, overlaps_decoding=True)


@contextmanager
def engine_of(bundle: OpenBundle, events: Counted | None = None) -> Iterator[Engine]:
    engine = Engine(bundle, max_queue=8, events=events)
    try:
        yield engine
    finally:
        engine.close()


def job_of(engine: Engine, kind: int, sampling: Sampling = SAMPLING, **more: Any) -> Job:
    prompt = engine.prompt("Late. " * (kind + 1), speaker="serena", language="auto", instruction=None)
    more = {"max_frames": FRAMES[kind]} | more
    return Job(prompt, dataclasses.replace(sampling, **CHANGES[kind]), kind, **more)


def outcome(job: Job, decoder: CodesOfAudio) -> tuple[list[list[int]], str]:
    """Codes of all frames that left, and why there are no more."""
    chunks: list[np.ndarray] = []
    try:
        chunks += job
    except JobError as error:
        return decoder.of(chunks).tolist() if chunks else [], str(error)
    return decoder.of(chunks).tolist(), "whole"


@pytest.mark.parametrize("spread", [synthesizer_module.MOST_SPREAD, 0.5])
def test_rows_that_come_stop_change_places_and_end(
    bundles: Bundles, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device rows stay where they are, with others between them, unless they are spread too far."""
    monkeypatch.setattr(synthesizer_module, "MOST_SPREAD", spread)
    found = []
    for bundle in bundles:
        decoder, talker, moves = CodesOfAudio(bundle.codec_decoder), bundle.talker, []
        swapping = Wrapped(talker, swap=lambda *slots, talker=talker, moves=moves: moves.append(talker.swap(*slots)))
        with engine_of(dataclasses.replace(bundle, codec_decoder=decoder, talker=swapping)) as engine:
            jobs = [job_of(engine, kind) for kind in range(len(FRAMES))]
            jobs[1].capacity = 3  # nobody reads it until the others are done
            for job in jobs:
                engine.submit(job)
            outcomes = {kind: outcome(jobs[kind], decoder) for kind in (0, 2, 3, 4, 1)}
        moved = bundle is bundles[0] or spread < 1
        assert bool(moves) == moved, "rows changed their places otherwise than the test says"
        found.append(outcomes)
    assert found[2] == found[1] == found[0]
    lengths = {kind: len(codes) for kind, (codes, _) in found[0].items()}
    assert any(length < FRAMES[kind] for kind, length in lengths.items()), "no row ended by itself"


def test_rows_that_are_set_back(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For a guard that is easily alarmed: one code 0 that comes again after as many frames."""
    monkeypatch.setattr(guard, "SAME_CODE_HOLD", 1)
    monkeypatch.setattr(guard, "SAME_CODE_LIMIT", 2)
    eager = dataclasses.replace(SAMPLING, repetition_penalty=1.0, top_k=12)
    found = []
    for bundle in bundles:
        decoder, events = CodesOfAudio(bundle.codec_decoder), Counted()
        with engine_of(dataclasses.replace(bundle, codec_decoder=decoder), events) as engine:
            tokens = {0: 12, 1: 12, 2: 300, 3: 12}
            jobs = [job_of(engine, kind, eager, text_tokens=tokens[kind], max_frames=300) for kind in tokens]
            for job in jobs:
                engine.submit(job)
            found.append(([outcome(job, decoder) for job in jobs], events.counts["retried"]))
    assert found[2] == found[1] == found[0]
    outcomes, retried = found[0]
    assert retried > len(FRAMES), "too few rows were set back to show anything"
    assert {why for _, why in outcomes} >= {"whole"}
    for reason in ("codebook 0 repeats", "ends too soon"):
        assert sum(reason in message for message in caplog.messages) > 3, f"no row was set back since {reason}"


def test_a_row_without_numbers_ends_alone(bundles: Bundles) -> None:
    _, bundle, _ = bundles
    for part in ("logits", "hidden"):
        for value in (np.nan, np.inf):
            synthesizer, rows = Synthesizer(bundle), []
            for slot in range(3):
                prompt = bundle.prompts.build("Hello", speaker="serena", language="auto", instruction=None)
                rows.append(synthesizer.start(Job(prompt, SAMPLING, slot, 40), slot))
            synthesizer.frame(rows)
            bad = bundle.talker.state.get(1)
            getattr(bad, part)[3] = value
            bundle.talker.state.put(1, bad, rows[1].sampler.seen)
            synthesizer.frame(rows)
            assert [type(row.error) for row in rows] == [type(None), FloatingPointError, type(None)]
            assert [row.state.made for row in rows] == [2, 1, 2]


def test_a_frame_is_two_runs_one_copy_up_and_one_back(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    _, bundle, _ = bundles
    groups = bundle.manifest.sizes.code_predictor.num_code_groups
    silent = Wrapped(bundle.codec_decoder, decode=lambda codes, states: (np.zeros((len(codes), 4), np.float32), states))
    synthesizer, rows = Synthesizer(dataclasses.replace(bundle, codec_decoder=silent)), []
    for slot in range(3):
        prompt = bundle.prompts.build("Hello", speaker="serena", language="auto", instruction=None)
        rows.append(synthesizer.start(Job(prompt, SAMPLING, slot, 40), slot))
    synthesizer.frame(rows)
    up, back, runs = [], [], []
    update, numpy = ort.OrtValue.update_inplace, ort.OrtValue.numpy
    session_type, run = ort.InferenceSession, ort.InferenceSession.run_with_iobinding
    monkeypatch.setattr(ort.OrtValue, "update_inplace", lambda self, data: (up.append(data.size), update(self, data)))
    monkeypatch.setattr(ort.OrtValue, "numpy", lambda self: (back.append(self.shape()), numpy(self))[1])
    monkeypatch.setattr(session_type, "run_with_iobinding", lambda *args: (runs.append(args[0]), run(*args)))
    synthesizer.frame(rows)
    assert len(runs) == 2
    assert up == [3 * (len(Controls._fields) + groups)]
    assert back == [[3, groups]]


def test_audio_is_decoded_while_the_talker_goes_on(bundles: Bundles) -> None:
    """And what fails there ends its row alone: here the one with the code 1 that fails."""
    _, _, bundle = bundles
    advanced, talker, waited = threading.Event(), bundle.talker, []

    def decode(codes: np.ndarray, states: Any) -> Any:
        waited.append(advanced.wait(PATIENCE_SECONDS))
        if (len(codes) < 3 and (codes[:, :, 1] == failing_code).any()) or len(codes) == 3:
            raise MemoryError
        return bundle.codec_decoder.decode(codes, states)

    def advance(*arguments: int) -> None:
        talker.advance(*arguments)
        advanced.set()

    rigged = dataclasses.replace(
        bundle,
        talker=Wrapped(talker, advance=advance),
        codec_decoder=Wrapped(bundle.codec_decoder, decode=decode),
    )
    synthesizer, rows = Synthesizer(rigged), []
    for slot in range(3):
        prompt = bundle.prompts.build("Hello", speaker="serena", language="auto", instruction=None)
        rows.append(synthesizer.start(Job(prompt, SAMPLING, slot, 40, text_tokens=9), slot))
    failing_code = seen_code(bundle, rows[1].job)
    synthesizer.frame(rows)
    assert waited[0], "the decoder came first"
    assert [type(row.error) for row in rows] == [type(None), MemoryError, type(None)]
    assert [row.job.frames for row in rows] == [1, 1, 1]


def test_a_row_whose_talker_fails_gets_none_of_the_audio_decoded_meanwhile(bundles: Bundles) -> None:
    """It may have been held back."""
    _, _, bundle = bundles

    def advance(*arguments: int) -> None:
        raise MemoryError

    synthesizer = Synthesizer(dataclasses.replace(bundle, talker=Wrapped(bundle.talker, advance=advance)))
    prompt = bundle.prompts.build("Hello", speaker="serena", language="auto", instruction=None)
    row = synthesizer.start(Job(prompt, SAMPLING, 0, 40), 0)
    synthesizer.frame([row])
    assert isinstance(row.error, MemoryError)
    row.job.finish()
    assert list(row.job) == []


def seen_code(bundle: OpenBundle, job: Job) -> int:
    """Code 1 of a job's first frame."""
    synthesizer = Synthesizer(bundle)
    row = synthesizer.start(Job(job.prompt, job.sampling, job.seed, 2, text_tokens=9), 3)
    synthesizer.frame([row])
    return int(row.state.guard.recent[0][1])


def test_what_is_on_a_device_is_copied_once(bundles: Bundles) -> None:
    state = bundles[1].talker.state
    sizes = bundles[1].manifest.sizes.talker
    random = np.random.default_rng(0)
    rows = [RowOutput(*(random.random(n, np.float32) for n in (sizes.vocab_size, sizes.hidden_size))) for _ in "ab"]
    for slot, row in enumerate(rows):
        state.put(slot, row, row.logits > 0.5)
    for slot, row in enumerate(rows):
        kept = state.get(slot)
        np.testing.assert_array_equal(kept.logits, row.logits)
        np.testing.assert_array_equal(kept.hidden, row.hidden)
        np.testing.assert_array_equal(state.seen.read(slot, slot + 1)[0], row.logits > 0.5)
    state.put(0, rows[1], rows[1].logits > 0.5)
    np.testing.assert_array_equal(kept.logits, rows[1].logits)
    kept.logits[:] = 0
    np.testing.assert_array_equal(state.get(1).logits, rows[1].logits)
