"""What a GPU's calls do, on the host: buffers that stay give what fresh ones give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from server.engine.bundle import OpenBundle, open_bundle
from server.engine.job import Job, Sampling
from server.engine.synthesizer import Synthesizer
from server.graphs.caches import FLOAT16, DeviceCaches, cache_shape
from server.graphs.code_predictor import CodePredictor, DrawParameters
from server.graphs.manifest import Manifest, read_manifest
from server.graphs.session import CUDA_PROVIDER, open_session
from server.graphs.static_call import StaticCall
from server.graphs.talker import Talker

SLOTS = 3


@pytest.fixture(scope="module")
def folder(bundle_of: Callable[..., Path]) -> Path:
    return bundle_of("tiny", "fp16")


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return read_manifest(folder)


@pytest.fixture
def static_on_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends what is for the device `cuda` to the host."""
    start = StaticCall.__init__

    def on_host(self: StaticCall, session: object, device: str, graph_id: int, **named: object) -> None:
        start(self, session, "cpu", graph_id, **named)

    monkeypatch.setattr(StaticCall, "__init__", on_host)
    monkeypatch.setattr("server.graphs.talker.open_caches", _device_caches)


@pytest.fixture
def cuda_on_host(static_on_host: None, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """An ONNX Runtime whose CUDA is the host; the list is of the options that sessions were given."""
    given: list[dict[str, str]] = []

    def opened(path: Path, options: ort.SessionOptions, cuda_options: dict[str, str]) -> ort.InferenceSession:
        given.append(cuda_options)
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr("server.graphs.session._open_on_cuda", opened)
    return given


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


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_a_bundle_on_cuda_speaks_as_on_the_cpu(
    folder: Path, cuda_on_host: list[dict[str, str]], cuda_graphs: bool
) -> None:
    expected = samples(open_bundle(folder, provider="cpu", threads=1, slots=SLOTS))
    assert cuda_on_host == []
    opened = open_bundle(folder, provider="auto", threads=1, slots=SLOTS, positions=200, cuda_graphs=cuda_graphs)
    assert opened.provider == "cuda"
    assert opened.talker.sizes.max_positions == 200
    captured = [{"enable_cuda_graph": "1"}] * 2 if cuda_graphs else [{}] * 2
    assert sorted(cuda_on_host, key=len) == sorted([{}, *captured], key=len)
    for one, other in zip(samples(opened), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def _device_caches(session, sizes, slots: int, device: str) -> DeviceCaches:
    return DeviceCaches(session, [FLOAT16] * 2 * sizes.num_layers, cache_shape(sizes, slots), "cpu")


@pytest.mark.parametrize("captured", [False, True])
def test_the_talker_over_buffers_that_stay(
    folder: Path, manifest: Manifest, static_on_host: None, captured: bool
) -> None:
    """Also with `total_length` as a captured graph keeps it: the caches' whole length."""
    session, sizes = open_session(folder / "talker.onnx", "cpu", 1), manifest.sizes.talker
    expected = open_bundle(folder, provider="cpu", threads=1, slots=SLOTS).talker
    found = Talker(session, sizes, SLOTS, "cuda", captured=captured)
    random = np.random.default_rng(0)
    lengths = np.array([4, 9, 2], np.int32)
    for slot, length in enumerate(lengths):
        prompt = random.normal(size=(length, sizes.hidden_size)).astype(np.float32)
        for talker in (expected, found):
            talker.prefill(slot, prompt)
    for first, stop in ((0, 3), (0, 3), (1, 3), (0, 3), (2, 3)):
        inputs = random.normal(size=(stop - first, sizes.hidden_size)).astype(np.float32)
        one, other = (talker.decode(first, inputs, lengths[first:stop]) for talker in (expected, found))
        np.testing.assert_allclose(other.logits, one.logits, atol=1e-3)
        np.testing.assert_allclose(other.hidden, one.hidden, atol=1e-3)
        lengths[first:stop] += 1


def test_the_code_predictor_over_buffers_that_stay(folder: Path, manifest: Manifest, static_on_host: None) -> None:
    session, sizes = open_session(folder / "code_predictor.onnx", "cpu", 1), manifest.sizes
    expected, found = CodePredictor(session), CodePredictor(session, "cuda")
    random, groups = np.random.default_rng(1), sizes.code_predictor.num_code_groups
    for rows in (2, 1, 2, 2):
        hidden = random.normal(size=(rows, sizes.talker.hidden_size)).astype(np.float32)
        code_0 = random.integers(sizes.code_predictor.vocab_size, size=rows)
        uniforms = random.random((rows, groups - 1), dtype=np.float32)
        ones = np.ones(rows, np.float32)
        parameters = DrawParameters(0.9 * ones, np.full(rows, 50), ones)
        one, other = (predictor.run(hidden, code_0, uniforms, parameters) for predictor in (expected, found))
        np.testing.assert_array_equal(other.codes, one.codes)
        np.testing.assert_array_equal(other.embedding, one.embedding)
