"""The codec decoder's convolutions in 8 bits: their arithmetic, their calibration, and when they are left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from export import calibration
from export.calibration import noise_dbfs, quantise_quietly, spoken_codes
from export.convolutions import HEADROOM, WEIGHT_LEVELS, blocks, quantise_convolutions, range_output, watched
from server.graphs.manifest import read_manifest

CHANNELS, KERNEL, DILATION = 6, 7, 3
FROM_0_TO_1 = np.array([[0.0] * CHANNELS, [1.0] * CHANNELS], np.float32)


def one_convolution(weight: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """A graph of a single convolution, named as the decoder's are."""
    stem = "decoder.1.block.2.conv1.conv"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", f"{stem}.weight", f"{stem}.bias"], ["y"], dilations=[DILATION])],
        "one",
        [value("x", TensorProto.FLOAT, ["rows", CHANNELS, "steps"])],
        [value("y", TensorProto.FLOAT, ["rows", CHANNELS, "left"])],
        [numpy_helper.from_array(weight, f"{stem}.weight"), numpy_helper.from_array(bias, f"{stem}.bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model: onnx.ModelProto, outputs: list[str], x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(outputs, {"x": x})


LOUDNESS = hnp.arrays(np.float32, CHANNELS, elements=st.floats(2**-10, 2**10, width=32))


@settings(max_examples=20, deadline=None)
@given(before=LOUDNESS, after=LOUDNESS, seed=st.integers(0, 999))
def test_each_channel_is_as_exact_as_its_own_loudness(before: np.ndarray, after: np.ndarray, seed: int) -> None:
    """Channels of very different loudness share a kernel, and none pays for another."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=(CHANNELS, CHANNELS, KERNEL)).astype(np.float32)
    weight *= after[:, None, None] / before[None, :, None]
    low, high = draw.uniform(-1, 0), draw.uniform(0.1, 1)
    x = (draw.uniform(low, high, (2, CHANNELS, 60)) * before[:, None]).astype(np.float32)
    model = one_convolution(weight, (draw.normal(size=CHANNELS) * after).astype(np.float32))
    observed, names = watched(model)
    (wanted,) = run(model, ["y"], x)
    ranges = dict(zip(names, run(observed, [range_output(name) for name in names], x), strict=True))
    np.testing.assert_allclose(ranges["x"], [x.min((0, 2)), x.max((0, 2))])
    np.testing.assert_allclose(ranges["y"], [wanted.min((0, 2)), wanted.max((0, 2))], rtol=1e-5)
    quantise_convolutions(model, ranges, [1])
    onnx.checker.check_model(model)
    (found,) = run(model, ["y"], x)
    for channel in range(CHANNELS):
        error, loud = found[:, channel] - wanted[:, channel], np.abs(wanted[:, channel]).max()
        assert np.sqrt(np.square(error).mean()) < 0.02 * loud


def test_weights_leave_room_for_processors_without_vnni() -> None:
    """Those add pairs of products in 16 bits: 255 * 63 twice fits, 255 * 127 twice does not."""
    assert 2 * 255 * WEIGHT_LEVELS < 2**15
    weight = np.random.default_rng(0).normal(size=(CHANNELS, CHANNELS, KERNEL)).astype(np.float32)
    model = one_convolution(weight, np.zeros(CHANNELS, np.float32))
    quantise_convolutions(model, dict.fromkeys(("x", "y"), FROM_0_TO_1), [1])
    (stored,) = (numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith(".q"))
    assert np.abs(stored.astype(int)).max() == WEIGHT_LEVELS


def test_what_is_louder_than_ever_heard_is_clipped_and_not_wrapped() -> None:
    weight = np.zeros((CHANNELS, CHANNELS, 1), np.float32)
    weight[np.arange(CHANNELS), np.arange(CHANNELS)] = 1
    model = one_convolution(weight, np.zeros(CHANNELS, np.float32))
    quantise_convolutions(model, dict.fromkeys(("x", "y"), FROM_0_TO_1), [1])
    (found,) = run(model, ["y"], np.full((1, CHANNELS, 8), 9.0, np.float32))
    np.testing.assert_allclose(found, HEADROOM, rtol=0.01)


@pytest.fixture
def decoder(bundle_of: Callable[..., Path]) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """A random float32 decoder and codes of three texts."""
    folder = bundle_of("0.6B-like")
    sizes = read_manifest(folder).sizes.codec
    draw = np.random.default_rng(0)
    codes = [draw.integers(sizes.codebook_size, size=(12, sizes.num_quantizers)) for _ in range(3)]
    return onnx.load(folder / "codec_decoder.onnx"), codes


def test_noise_decides(decoder: tuple[onnx.ModelProto, list[np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    model, codes = decoder
    every = blocks(model.graph)
    assert every == [1, 2, 3, 4]
    noises = []
    for count in range(1, 5):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        monkeypatch.setattr(calibration, "blocks", lambda graph, count=count: every[:count])
        noises.append(quantise_quietly(copy, codes, always=True)[0])
        assert blocks(copy.graph) == every[count:]
        units = sum(node.op_type == "QLinearConv" for node in copy.graph.node)
        assert units == count * 6, "three residual units of two convolutions"
    assert noises == sorted(noises)

    monkeypatch.setattr(calibration, "blocks", blocks)
    monkeypatch.setattr(calibration, "LOUDEST_NOISE", noises[1])
    before = model.SerializeToString(deterministic=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert quantise_quietly(copy, codes, always=False) == (noises[1], [3, 4])
    assert blocks(copy.graph) == [3, 4]
    monkeypatch.setattr(calibration, "LOUDEST_NOISE", -1000.0)
    assert quantise_quietly(model, codes, always=False)[1] == every
    assert model.SerializeToString(deterministic=True) == before


def test_noise_is_measured_against_full_scale() -> None:
    silence, tone = np.zeros(1000, np.float32), np.ones(1000, np.float32)
    assert noise_dbfs(tone, silence) == pytest.approx(0, abs=1e-6)
    assert noise_dbfs(0.001 * tone, silence) == pytest.approx(-60, abs=1e-4)


def test_what_calibrates_is_what_the_bundle_says(bundle_of: Callable[..., Path]) -> None:
    folder = bundle_of("0.6B-like")
    manifest = read_manifest(folder)
    heard: list[tuple[int, int]] = []
    codes = spoken_codes(folder, manifest, lambda done, total: heard.append((done, total)))
    assert heard == [(i + 1, len(codes)) for i in range(len(codes))]
    for frames in codes:
        assert frames.shape[1] == manifest.sizes.codec.num_quantizers
        assert len(np.unique(frames)) > 10
    again = spoken_codes(folder, manifest, lambda done, total: None)
    for one, other in zip(codes, again, strict=True):
        np.testing.assert_array_equal(one, other)
