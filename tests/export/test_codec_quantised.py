"""The codec decoder in 8 bits: its arithmetic and its calibration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from export.calibration import spoken_codes
from export.checkpoint import open_checkpoint
from export.codec_precision import export_parts
from export.graphs.byte_operators import BYTE_MIDDLE
from export.graphs.codec_decoder import CodecDecoder, ResidualUnit, decode_whole
from export.graphs.codec_quantised import (
    HEADROOM,
    LEVELS,
    WEIGHT_LEVELS,
    ConvAsProduct,
    QuantisedUnit,
    UnitRanges,
    UpsampleAsProduct,
    observe,
    parts_of,
    replace_parts,
)
from export.graphs.streaming import CausalConv, CausalConvTranspose, Stream
from export.weights import CheckpointError
from server.engine.rows import Row
from server.engine.synthesizer import Synthesizer
from server.graphs.codec_decoder import CodecDecoder as Graph
from server.graphs.session import open_session
from server.manifest import read_manifest
from tests.bundles import RANDOM_BUNDLE
from tests.closeness import assert_close
from tests.export.causal_layers import CUTS, drawn, streamed

CHANNELS, DILATION = 6, 3


@settings(max_examples=30, deadline=None)
@given(cuts=CUTS, kernel=st.integers(2, 7), dilation=st.integers(1, 4), rows=st.integers(1, 3))
def test_a_convolution_is_a_product(cuts: list[int], kernel: int, dilation: int, rows: int) -> None:
    convolution = drawn(CausalConv(5, 7, kernel, dilation), kernel)
    x = torch.randn(rows, 5, 40)
    assert_close(streamed(ConvAsProduct(convolution), x, cuts), streamed(convolution, x, []))


@settings(max_examples=30, deadline=None)
@given(cuts=CUTS, stride=st.integers(2, 5), strides=st.integers(1, 2), rows=st.integers(1, 3))
def test_a_transposed_convolution_is_a_product(cuts: list[int], stride: int, strides: int, rows: int) -> None:
    transposed = drawn(CausalConvTranspose(5, 7, stride * strides, stride), stride)
    x = torch.randn(rows, 5, 40)
    assert_close(streamed(UpsampleAsProduct(transposed), x, cuts), streamed(transposed, x, []))


def test_a_kernel_of_more_than_two_strides_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel 9 and stride 3"):
        UpsampleAsProduct(CausalConvTranspose(5, 7, 9, 3))


def unit_and_ranges(x: Tensor, seed: int, loudness: np.ndarray | None = None) -> tuple[ResidualUnit, UnitRanges]:
    """A random unit whose inner channels are as loud as that, and the ranges that `x` drives it through."""
    unit = drawn(ResidualUnit(CHANNELS, DILATION), seed)
    if loudness is not None:
        unit.conv1.conv.weight *= torch.from_numpy(loudness)[:, None, None]
        unit.conv2.conv.weight /= torch.from_numpy(loudness)[:, None]
    return unit, ranges_of(unit, x)


def ranges_of(unit: ResidualUnit, x: Tensor) -> UnitRanges:
    first = unit.act1(x)
    middle = unit.conv1(first, Stream([torch.zeros(len(x), *unit.conv1.states("")[0].shape)]))
    values = (x, first, middle, unit.act2(middle))
    return UnitRanges(*(value.abs().amax((0, 2)) for value in values))


@settings(max_examples=20, deadline=None)
@given(loudness=hnp.arrays(np.float32, CHANNELS, elements=st.floats(2**-6, 2**6, width=32)), seed=st.integers(0, 999))
def test_each_channel_is_as_exact_as_its_own_loudness(loudness: np.ndarray, seed: int) -> None:
    """Channels of very different loudness share a kernel, and none pays for another."""
    x = (
        torch.randn(2, CHANNELS, 60, generator=torch.Generator().manual_seed(seed))
        * torch.from_numpy(loudness)[:, None]
    )
    unit, ranges = unit_and_ranges(x, seed, loudness)
    quantised = QuantisedUnit(unit, ranges)
    wanted = streamed_unit(unit, x)
    found = streamed_unit(quantised, x.transpose(1, 2)).transpose(1, 2)
    error = (found - wanted).square().mean((0, 2)).sqrt()
    summands = unit.conv2.conv.weight[..., 0].abs() @ ranges.second
    assert (error < 0.03 * summands).all()


@pytest.mark.parametrize("factor", [0, 1e-30, 1e-12, 1e-6])
def test_a_filter_that_adds_little_but_its_bias_keeps_it(factor: float) -> None:
    """Its weights are so small that the bias, in steps of their sums, would not fit into 32 bits."""
    x = torch.randn(2, CHANNELS, 60, generator=torch.Generator().manual_seed(0))
    unit = drawn(ResidualUnit(CHANNELS, DILATION), 0)
    unit.conv1.conv.weight *= factor
    unit.conv1.conv.bias *= 0.01
    ranges = ranges_of(unit, x)
    quantised = QuantisedUnit(unit, ranges)
    error = (streamed_unit(quantised, x.transpose(1, 2)).transpose(1, 2) - streamed_unit(unit, x)).abs().amax((0, 2))
    assert (error < 0.03 * (unit.conv2.conv.weight[..., 0].abs() @ ranges.second)).all()


def streamed_unit(unit: nn.Module, x: Tensor) -> Tensor:
    (spec,) = unit.states("x") if isinstance(unit, QuantisedUnit) else unit.conv1.states("x")
    return unit(x, Stream([torch.zeros(len(x), *spec.shape)]))


def test_weights_leave_room_for_processors_without_vnni() -> None:
    """Those add pairs of products in 16 bits: 255 * 63 twice fits, 255 * 127 twice does not."""
    assert 2 * 255 * WEIGHT_LEVELS < 2**15
    x = torch.randn(1, CHANNELS, 60)
    quantised = QuantisedUnit(*unit_and_ranges(x, 0))
    for weight in (quantised.dilated, quantised.pointwise):
        assert weight.dtype == torch.int8
        assert weight.int().abs().max() == WEIGHT_LEVELS


def test_what_is_louder_than_ever_heard_is_clipped_and_not_wrapped() -> None:
    x = torch.rand(1, CHANNELS, 60)
    quantised = QuantisedUnit(*unit_and_ranges(x, 0))
    loudest = HEADROOM * x.amax((0, 2))
    clipped = streamed_unit(quantised, loudest.expand(1, 60, -1)) - loudest
    beyond = streamed_unit(quantised, (9 * loudest).expand(1, 60, -1)) - 9 * loudest
    assert_close(beyond, clipped, 1e-4)  # both are differences of numbers up to 10 times as large
    for table in (quantised.table_1, quantised.table_2):
        assert table.int().sub(BYTE_MIDDLE).abs().max() <= LEVELS


@pytest.fixture
def load(checkpoint_of: Callable[[str], Path]) -> Callable[[], CodecDecoder]:
    """Makes a random decoder."""
    return lambda: CodecDecoder.from_checkpoint(open_checkpoint(str(checkpoint_of("short")))).requires_grad_(False)


@pytest.fixture
def codes(load: Callable[[], CodecDecoder]) -> list[np.ndarray]:
    """Codes of three texts."""
    config, draw = load().codec_config, np.random.default_rng(0)
    return [draw.integers(config["codebook_size"], size=(12, config["num_quantizers"])) for _ in range(3)]


def test_ranges_are_what_speech_reaches(load: Callable[[], CodecDecoder], codes: list[np.ndarray]) -> None:
    decoder = load()
    alone = [observe(decoder, [one]) for one in codes]
    for number, units in observe(decoder, codes).items():
        assert len(units) == 3
        for index, unit in enumerate(units):
            for name, found in vars(unit).items():
                expected = torch.stack([getattr(one[number][index], name) for one in alone]).amax(0)
                torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_graph_computes_what_the_module_says(
    load: Callable[[], CodecDecoder], codes: list[np.ndarray], tmp_path: Path
) -> None:
    """But for roundings: the module's sums are exact, ONNX Runtime's are float32 where they are scaled."""
    decoder = load()
    ranges = observe(decoder, codes[:-1])
    in_float32 = [part for part in parts_of(decoder) if not part.layer]
    path = export_parts(load(), ranges, in_float32, tmp_path)
    replace_parts(decoder, ranges, in_float32)
    kinds = [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
    assert kinds.count("QLinearConv") == kinds.count("MatMulIntegerToFloat") == 3 * 3
    assert "MatMulNBits" not in kinds
    session = open_session(path, "cpu", 1)
    graph = Graph(session)
    (found,), _ = graph.decode(codes[-1][None], [graph.start()])
    wanted = decode_whole(decoder, codes[-1])
    assert np.square(found - wanted).mean() < 1e-3 * np.square(wanted).mean()


def test_what_calibrates_is_what_the_bundle_says(bundle_of: Callable[..., Path]) -> None:
    folder = bundle_of("short")
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


def test_a_text_to_which_a_model_says_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one in characters on which it was not trained; one is to calibrate with, and one to measure with."""
    manifest, frame = read_manifest(RANDOM_BUNDLE), Synthesizer.frame
    unread: set[int] = set()

    def some(self: Synthesizer, rows: list[Row]) -> None:
        for row in rows:
            frame(self, rows) if row.job.seed not in unread else row.end()

    monkeypatch.setattr(Synthesizer, "frame", some)
    every = spoken_codes(RANDOM_BUNDLE, manifest, lambda done, total: None)
    unread |= {0, 1, 3}
    for one, other in zip(spoken_codes(RANDOM_BUNDLE, manifest, lambda *_: None), [every[2], every[4]], strict=True):
        np.testing.assert_array_equal(one, other)
    unread |= {2}
    with pytest.raises(CheckpointError, match="ends at once"):
        spoken_codes(RANDOM_BUNDLE, manifest, lambda done, total: None)


def test_a_model_that_says_nothing_is_told(bundle_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Synthesizer, "frame", lambda self, rows: [row.end() for row in rows])
    folder = bundle_of("short")
    with pytest.raises(CheckpointError, match=r"ends at once .* --precision fp32"):
        spoken_codes(folder, read_manifest(folder), lambda done, total: None)
