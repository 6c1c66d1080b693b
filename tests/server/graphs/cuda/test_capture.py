"""Recordings: who may use CUDA while a call is recorded, and what is recorded when. The host is the device here."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from server.engine.bundle import OpenBundle
from server.engine.job import Job, Sampling
from server.engine.synthesizer import Synthesizer
from server.engine.worker import Engine
from server.graphs.cuda.capture import CapturedCall, CaptureGate, without_recording
from server.graphs.cuda.memory import WINDOWS, DeviceMemory
from tests.server.engine.rigs import Wrapped
from tests.server.running import PATIENCE_SECONDS
from tests.unrolled import on_a_device

SLOTS = 5
GREEDY = Sampling(0.0, 1, 1.0, 1.05, 0.0, 1, 1.0)


@pytest.fixture(scope="module")
def bundle(bundle_of: Callable[..., Path], unrolled_frame_of: Callable[[str], Path]) -> OpenBundle:
    return on_a_device(bundle_of("tiny"), unrolled_frame_of("tiny"), SLOTS)


class Watched(CaptureGate):
    """A gate that counts, for each thread, how often it recorded, and sees that no use is nested."""

    def __init__(self) -> None:
        super().__init__()
        self.recordings: list[str] = []
        self.inside = threading.local()

    @contextmanager
    def shared(self) -> Iterator[None]:
        assert not getattr(self.inside, "it", False), "a use within a use waits for ever once somebody records"
        with super().shared():
            self.inside.it = True
            try:
                yield
            finally:
                self.inside.it = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        assert not getattr(self.inside, "it", False)
        with super().alone():
            self.recordings.append(threading.current_thread().name)
            yield


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    for module in ("capture", "caches", "memory"):
        monkeypatch.setattr(f"server.graphs.cuda.{module}.GATE", watched)
    return watched


def test_who_records_is_alone() -> None:
    gate, inside = CaptureGate(), [0, 0]
    lock = threading.Lock()

    def work(recorder: bool) -> None:
        for _ in range(50):
            with gate.alone() if recorder else gate.shared():
                with lock:
                    inside[recorder] += 1
                assert inside[True] <= 1
                assert not (inside[True] and inside[False])
                with lock:
                    inside[recorder] -= 1

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, number < 2) for number in range(6)]:
            done.result(PATIENCE_SECONDS)


def test_a_recorder_is_not_kept_waiting_by_those_who_go_on() -> None:
    gate, stop, going = CaptureGate(), threading.Event(), threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            with gate.shared():
                going.set()

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(go_on) for _ in range(2)]
        assert going.wait(PATIENCE_SECONDS)
        recorded = pool.submit(_record, gate)
        recorded.result(PATIENCE_SECONDS)
        stop.set()
        for worker in workers:
            worker.result(PATIENCE_SECONDS)


def _record(gate: CaptureGate) -> None:
    with gate.alone():
        pass


@pytest.mark.parametrize("way", ["shared", "alone"])
def test_an_error_leaves_the_gate_usable(way: str) -> None:
    gate = CaptureGate()
    with pytest.raises(MemoryError), getattr(gate, way)():
        raise MemoryError
    with gate.alone():
        pass
    with gate.shared():
        pass


class Call:
    """Stands for a bound call; keeps the options that it was run with."""

    def __init__(self) -> None:
        self.numbers: list[str] = []
        self.fails = 0

    def run(self, options: ort.RunOptions) -> None:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("no")
        self.numbers.append(options.get_run_config_entry("gpu_graph_id"))


def test_a_call_is_recorded_once_a_thread(gate: Watched) -> None:
    call = Call()
    captured = CapturedCall(call, 7)
    call.fails = 1
    with pytest.raises(RuntimeError):
        captured.run()
    for _ in range(3):
        captured.run()
    assert len(gate.recordings) == 2, "what failed was recorded as little as anything"
    other = threading.Thread(target=captured.run)
    other.start()
    other.join()
    assert len(gate.recordings) == 3
    assert call.numbers == ["7"] * 4


def test_nothing_is_recorded_where_it_would_be_lost(gate: Watched) -> None:
    call = Call()
    captured = CapturedCall(call, 7)
    with without_recording():
        captured.run()
    assert (call.numbers, gate.recordings) == (["-1"], [])
    captured.run()
    assert (call.numbers, len(gate.recordings)) == (["-1", "7"], 1)


def spoken(engine: Engine, texts: list[str]) -> list[np.ndarray]:
    prompts = [engine.prompt(text, speaker="serena", language="auto", instruction=None) for text in texts]
    jobs = [Job(prompt, GREEDY, 0, 20) for prompt in prompts]
    for job in jobs:
        engine.submit(job)
    return [np.concatenate(list(job)) for job in jobs]


def test_an_engine_has_recorded_all_that_it_needs(bundle: OpenBundle, gate: Watched) -> None:
    """As a GPU's engine does: the decoder beside the talker."""
    engine = Engine(dataclasses.replace(bundle, overlaps_decoding=True), max_queue=8)
    try:
        recorded = len(gate.recordings)
        assert recorded > 2 * len([size for size in WINDOWS if size <= SLOTS])
        assert {name.split("-")[0] for name in gate.recordings} == {"engine", "codec"}
        assert not bundle.talker.state.held.any()
        for rows in range(1, SLOTS + 1):
            spoken(engine, ["Late again."] * rows)
        assert len(gate.recordings) == recorded
    finally:
        engine.close()


def test_prompts_in_any_slots_leave_the_recordings_as_they_are(bundle: OpenBundle, gate: Watched) -> None:
    """More windows of slots are prefilled than are kept."""
    synthesizer, talker = Synthesizer(bundle), bundle.talker
    synthesizer.warm_up()
    recorded = len(gate.recordings)
    prompt = np.zeros((2, talker.sizes.hidden_size), np.float32)
    for first in range(SLOTS):
        for stop in range(first + 1, SLOTS + 1):
            talker.prefill_together(first, [prompt] * (stop - first))
    talker.release(())
    synthesizer.warm_up()
    assert len(gate.recordings) == recorded


def test_an_engine_that_cannot_record_is_none(bundle: OpenBundle) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("CUDA error: out of memory")

    with pytest.raises(MemoryError, match="out of memory"):
        Engine(dataclasses.replace(bundle, talker=Wrapped(bundle.talker, advance=fail)), max_queue=1)


@pytest.mark.parametrize("slots", [1, 5, 8, 130])
def test_windows_hold_the_rows_and_are_few(bundle: OpenBundle, slots: int) -> None:
    memory = bundle.talker.state.memory
    assert isinstance(memory, DeviceMemory)
    windows = {memory.window(start, stop, slots) for stop in range(1, slots + 1) for start in range(stop)}
    assert {first for first, _ in windows} == {0}
    assert len(windows) <= len(WINDOWS) + 1
    for stop in range(1, slots + 1):
        _, last = memory.window(0, stop, slots)
        assert stop <= last <= min(slots, 2 * stop)


def test_idle_slots_keep_what_they_hold(bundle: OpenBundle) -> None:
    """A row that pauses and a prompt on its way, between rows that speak."""
    synthesizer, talker = Synthesizer(bundle), bundle.talker
    prompts = [
        bundle.prompts.build(t, speaker="serena", language="auto", instruction=None) for t in ("One", "Two", "Six")
    ]
    rows = [synthesizer.start(Job(prompt, GREEDY, 0, 40), slot) for slot, prompt in enumerate(prompts)]
    talker.prefill(3, prompts[0].embeddings)
    synthesizer.frame(rows)
    lengths = {1: rows[1].state.length, 3: len(prompts[0])}
    before = {slot: talker.save(slot, length) for slot, length in lengths.items()}
    last = synthesizer.start(Job(prompts[1], GREEDY, 1, 40), 4)
    for _ in range(5):
        synthesizer.frame([rows[0], rows[2], last])
    for slot, length in lengths.items():
        for found, kept in zip(talker.save(slot, length), before[slot], strict=True):
            np.testing.assert_array_equal(found, kept)
        assert talker.state.held[slot] in (length, length + 1), "idle slots count nothing"
    talker.release({0, 1})
    assert talker.state.held[:2].all() and not talker.state.held[2:].any()
