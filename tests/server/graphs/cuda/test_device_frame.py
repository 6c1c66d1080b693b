"""A GPU's frame on the host: it gives what the graphs for the CPU give, over buffers that stay."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from server.engine import provider
from server.engine.bundle import OpenBundle
from server.engine.job import Job, Sampling
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.engine.worker import Engine
from server.graphs.code_predictor import forced_logits
from server.graphs.cuda import capture
from server.graphs.cuda.capture import CapturedCall
from server.graphs.cuda.memory import DeviceMemory
from server.graphs.frame_state import Controls, RowOutput, control_buffer
from server.graphs.session import CUDA_PROVIDER, Chosen, ShortageError
from server.manifest import BundleError
from tests.closeness import assert_close
from tests.rigged import with_states_of_another_version
from tests.unrolled import on_a_device

SLOTS = 3


@pytest.fixture(scope="module")
def folder(bundle_of: Callable[..., Path]) -> Path:
    return bundle_of("short", "fp16")


@pytest.fixture
def cuda_on_host(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An ONNX Runtime whose CUDA is the host; the list is of the graphs that were opened there."""
    opened_on_cuda: list[str] = []

    def opened(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
        opened_on_cuda.append(path.stem)
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr("server.graphs.session._open_on_cuda", opened)
    monkeypatch.setattr("server.engine.bundle.DeviceMemory", lambda session, device: DeviceMemory(session, "cpu"))
    return opened_on_cuda


def samples(bundle: OpenBundle) -> list[np.ndarray]:
    """Three rows of different lengths; one of them changes its slot on the way."""
    synthesizer, rows = Synthesizer(bundle), []
    for slot, frames in enumerate((3, 9, 7)):
        prompt = bundle.prompts.build("Hello." * (slot + 1), speaker="ryan", language="english", instruction=None)
        job = Job(prompt, Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0), seed=slot, max_frames=frames)
        rows.append(synthesizer.start(job, slot))
    jobs = [row.job for row in rows]
    while rows:
        synthesizer.frame(rows)
        if any(row.finished for row in rows) and len(rows) == 3:
            synthesizer.move(rows[2], 0, None)
        rows = [row for row in rows if not row.finished]
    for job in jobs:
        job.finish()
    return [np.concatenate(list(job)) for job in jobs]


def test_a_bundle_on_cuda_speaks_as_on_the_cpu(folder: Path, cuda_on_host: list[str]) -> None:
    expected = samples(open_bundle(folder, provider="cpu", threads=1, slots=SLOTS))
    assert cuda_on_host == []
    opened = open_bundle(folder, provider="auto", threads=1, slots=SLOTS, positions=200)
    assert opened.provider == "cuda"
    assert opened.talker.sizes.max_positions == 200
    assert sorted(cuda_on_host) == ["code_predictor", "codec_decoder", "talker"]
    for one, other in zip(samples(opened), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("recording", [False, True])
def test_the_cpu_takes_over_where_calls_fail(
    folder: Path,
    cuda_on_host: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    recording: bool,
) -> None:
    """When they are tried out, or recorded; the GPU's memory is free by then."""
    run, open_on = CapturedCall.run, provider.open_on
    on_cuda: list[weakref.ref[OpenBundle]] = []

    def fail(call: CapturedCall) -> None:
        if recording == hasattr(capture._this_thread, "records_nothing"):
            run(call)
        else:
            raise RuntimeError("CUDA failure 2: out of memory")

    def opened(device: Chosen, *arguments: Any, **named: Any) -> OpenBundle:
        assert not any(bundle() for bundle in on_cuda), "what failed still takes memory"
        bundle = open_on(device, *arguments, **named)
        on_cuda.extend([weakref.ref(bundle)] if device == "cuda" else [])
        return bundle

    monkeypatch.setattr(CapturedCall, "run", fail)
    monkeypatch.setattr(provider, "open_on", opened)
    bounds = {"threads": 1, "max_rows": SLOTS, "max_queue": 1, "max_prompt": 100, "max_frames": 50}
    engine = Engine.load(folder, provider="auto", **bounds)
    try:
        assert len(on_cuda) == 1
        line = caplog.messages[-1]
        assert "the CPU computes" in line and "the GPU has too little free memory" in line
        assert (engine.provider, engine.rows, engine.max_frames) == ("cpu", SLOTS, 50)
        prompt = engine.prompt("Hello.", speaker="ryan", language="english", instruction=None)
        job = Job(prompt, Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0), seed=0, max_frames=3)
        engine.submit(job)
        assert np.concatenate(list(job)).size
    finally:
        engine.close()
    with pytest.raises(ShortageError, match="KW_EXECUTION_PROVIDER=cuda, but CUDA cannot compute"):
        Engine.load(folder, provider="cuda", **bounds)


def test_a_bundle_with_a_buffer_for_each_state_is_refused(folder: Path, tmp_path: Path) -> None:
    """As other versions have converted."""
    older = with_states_of_another_version(folder, tmp_path / "older")
    with pytest.raises(BundleError, match="keeps its states as another version does; convert the checkpoint again"):
        open_bundle(older, provider="cpu", threads=1, slots=1)


@pytest.fixture(scope="module", params=["short", "odd"])
def pair(
    request: pytest.FixtureRequest, bundle_of: Callable[..., Path], unrolled_frame_of: Callable[[str], Path]
) -> tuple[OpenBundle, OpenBundle]:
    """A bundle with the CPU's frame and with a GPU's, both in float32."""
    bundle, frame = bundle_of(request.param), unrolled_frame_of(request.param)
    return open_bundle(bundle, provider="cpu", threads=1, slots=SLOTS), on_a_device(bundle, frame, SLOTS)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_both_frames_give_the_same_codes_and_talker_inputs(
    pair: tuple[OpenBundle, OpenBundle], random: np.random.Generator
) -> None:
    """In windows of all sizes; slot 1 has no row in the last frame."""
    sizes = pair[0].manifest.sizes
    groups, codes, vocab_size = (
        sizes.code_predictor.num_code_groups, sizes.code_predictor.vocab_size, sizes.talker.vocab_size
    )  # fmt: skip
    rows = [
        Controls(5, predictor_temperature=0.9, predictor_top_k=50),
        Controls(9, temperature=1.3, top_k=vocab_size, predictor_top_k=1),
        Controls(2, top_k=20, predictor_temperature=1.4, predictor_top_k=codes, predictor_top_p=0.7),
    ]
    for first, stop in ((0, 3), (0, 3), (1, 3), (2, 3), (0, 3)):
        sent = control_buffer(rows[first:stop], list(random.random((stop - first, groups), dtype=np.float32)))
        shapes = [(stop - first, n) for n in (vocab_size, sizes.talker.hidden_size, sizes.talker.hidden_size)]
        logits, hidden, text = (random.normal(size=shape).astype(np.float32) for shape in shapes)
        found = []
        for bundle in pair:
            state = bundle.talker.state
            for place, slot in enumerate(range(first, stop)):
                state.put(slot, RowOutput(logits[place], hidden[place]), np.zeros(vocab_size, bool))
                state.put_text(slot, text[place])
            found.append(bundle.code_predictor.run(first, sent))
        np.testing.assert_array_equal(*found)
        host, device = (bundle.talker.state for bundle in pair)
        assert_close(device.talker_inputs.read(first, stop), host.talker_inputs.read(first, stop))
        for state in (host, device):
            assert list(state.lengths.read(first, stop)) == [row.length + 1 for row in rows[first:stop]]
    assert_close(*(forced_logits(bundle.code_predictor._session, hidden, found[0]) for bundle in reversed(pair)))


def test_a_talker_step_over_what_the_frame_left(
    pair: tuple[OpenBundle, OpenBundle], random: np.random.Generator
) -> None:
    sizes = pair[0].manifest.sizes.talker
    lengths = np.array([4, 9, 2], np.int32)
    for slot, length in enumerate(lengths):
        prompt = random.normal(size=(length, sizes.hidden_size)).astype(np.float32)
        for bundle in pair:
            bundle.talker.prefill(slot, prompt)
    for first, stop in ((0, 3), (0, 3), (1, 3), (0, 3), (2, 3)):
        inputs = random.normal(size=(stop - first, sizes.hidden_size)).astype(np.float32)
        expected, found = (bundle.talker.decode(first, inputs, lengths[first:stop]) for bundle in pair)
        lengths[first:stop] += 1
        assert_close(found.logits, expected.logits)
        assert_close(found.hidden, expected.hidden)
