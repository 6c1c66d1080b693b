"""A GPU's frame on the host: it gives what the graphs for the CPU give, over buffers that stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from server.engine.bundle import OpenBundle, open_bundle
from server.engine.job import Job, Sampling
from server.engine.synthesizer import Synthesizer
from server.graphs.caches import ELEMENT_TYPES, DeviceCaches, cache_shape
from server.graphs.code_predictor import DrawParameters
from server.graphs.cuda.device_frame import Controls, DeviceTalker, control_buffer, forced_logits
from server.graphs.session import CUDA_PROVIDER
from server.graphs.talker import TalkerOutput
from tests.closeness import assert_close
from tests.unrolled import on_a_device, unrolled_frame

SLOTS = 3


@pytest.fixture(scope="module")
def folder(bundle_of: Callable[..., Path]) -> Path:
    return bundle_of("tiny", "fp16")


@pytest.fixture
def cuda_on_host(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """An ONNX Runtime whose CUDA is the host; the list is of the options that sessions were given."""
    given: list[dict[str, str]] = []

    def opened(path: Path, options: ort.SessionOptions, cuda_options: dict[str, str]) -> ort.InferenceSession:
        given.append(cuda_options)
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr("server.graphs.session._open_on_cuda", opened)
    monkeypatch.setattr("server.graphs.talker.open_caches", _device_caches)
    monkeypatch.setattr("server.engine.bundle.DeviceTalker", _talker_on_host)
    return given


def _device_caches(session, sizes, slots: int, device: str) -> DeviceCaches:
    types = [ELEMENT_TYPES[value.type] for value in session.get_inputs() if value.name.startswith("past.")]
    return DeviceCaches(session, types, cache_shape(sizes, slots), "cpu")


def _talker_on_host(session, sizes, slots: int, device: str, *, captured: bool = False) -> DeviceTalker:
    return DeviceTalker(session, sizes, slots, "cpu", captured=captured)


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


@pytest.fixture(scope="module", params=["0.6B-like", "1.7B-like", "odd"])
def pair(
    request, checkpoint_of: Callable[[str], Path], bundle_of: Callable[..., Path], tmp_path_factory
) -> tuple[OpenBundle, OpenBundle]:
    """A bundle with a host's frames and with a device's, both in float32."""
    bundle = bundle_of(request.param)
    frame = unrolled_frame(checkpoint_of(request.param), bundle, tmp_path_factory.mktemp("frame"))
    return open_bundle(bundle, provider="cpu", threads=1, slots=SLOTS), on_a_device(bundle, frame, SLOTS)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_frame_gives_the_hosts_codes_and_the_talkers_next_input(
    pair: tuple[OpenBundle, OpenBundle], random: np.random.Generator
) -> None:
    """Of the loop's graph, for the code 0 that was drawn; slot 1 has no row in the last frame."""
    host, device = pair
    sizes, pad = host.manifest.sizes, host.prompts.pad
    groups, codes, vocab_size = (
        sizes.code_predictor.num_code_groups, sizes.code_predictor.vocab_size, sizes.talker.vocab_size
    )  # fmt: skip
    rows = [
        Controls(5, predictor_temperature=0.9, predictor_top_k=50),
        Controls(9, temperature=1.3, top_k=vocab_size, predictor_top_k=1),
        Controls(2, top_k=20, predictor_temperature=1.4, predictor_top_k=codes, predictor_top_p=0.7),
    ]
    state = device.talker.state
    for first, stop in ((0, 3), (0, 3), (1, 3), (2, 3), (0, 3)):
        uniforms = random.random((stop - first, groups), dtype=np.float32)
        for slot in range(first, stop):
            output = TalkerOutput(
                *(random.normal(size=n).astype(np.float32) for n in (vocab_size, sizes.talker.hidden_size))
            )
            state.put(slot, output, np.zeros(vocab_size, bool))
        hidden = np.stack([state.get(slot).hidden for slot in range(first, stop)])
        found = device.code_predictor.run(first, control_buffer(rows[first:stop], list(uniforms)))
        columns = list(zip(*rows[first:stop], strict=True))[-3:]
        parameters = DrawParameters(
            *(np.array(c, t) for c, t in zip(columns, (np.float32, np.int64, np.float32), strict=True))
        )
        expected = host.code_predictor.run(hidden, found[:, 0].copy(), uniforms[:, 1:], parameters)
        np.testing.assert_array_equal(found[:, 1:], expected.codes)
        for place, slot in enumerate(range(first, stop)):
            assert_close(state.inputs.get(slot)[0], expected.embedding[place] + pad)
            assert state.lengths.get(slot) == rows[slot].length + 1
    logits = forced_logits(device.code_predictor._session, hidden, found)
    assert_close(logits, host.code_predictor.logits(hidden, found))


def test_a_step_over_what_the_frame_left(pair: tuple[OpenBundle, OpenBundle], random: np.random.Generator) -> None:
    """Also with `total_length` as a captured graph keeps it: the caches' whole length."""
    host, device = pair
    sizes = host.manifest.sizes.talker
    captured = DeviceTalker(device.talker.session, host.manifest.sizes, SLOTS, "cpu", captured=True)
    lengths = np.array([4, 9, 2], np.int32)
    for slot, length in enumerate(lengths):
        prompt = random.normal(size=(length, sizes.hidden_size)).astype(np.float32)
        for talker in (host.talker, device.talker, captured):
            talker.prefill(slot, prompt)
    for first, stop in ((0, 3), (0, 3), (1, 3), (0, 3), (2, 3)):
        inputs = random.normal(size=(stop - first, sizes.hidden_size)).astype(np.float32)
        expected = host.talker.decode(first, inputs, lengths[first:stop])
        lengths[first:stop] += 1
        for talker in (device.talker, captured):
            for place, slot in enumerate(range(first, stop)):
                talker.state.inputs.put(slot, inputs[place : place + 1])
                talker.state.lengths.put(slot, lengths[slot])
            talker.advance(first, stop, int(lengths[first:stop].max()))
            for place, slot in enumerate(range(first, stop)):
                found = talker.state.get(slot)
                assert_close(found.logits, expected.logits[place])
                assert_close(found.hidden, expected.hidden[place])
