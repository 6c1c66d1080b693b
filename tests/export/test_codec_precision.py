"""Which parts of the codec decoder compute in 8 bits: what is measured, what is chosen, and what is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export import codec_precision
from export.audibility import noise_to_mask
from export.checkpoint import open_checkpoint
from export.codec_precision import (
    Chosen,
    MeasuredPart,
    decoded,
    ever_quieter,
    export_parts,
    export_quantised,
    imitate_export,
    measure_parts,
    round_products,
)
from export.graphs.codec_decoder import CodecDecoder, decode_whole
from export.graphs.codec_quantised import Part, Product, UnitRanges, observe
from export.quantise import INT8, INT8_FINE, WeightFormat, quantise_graph
from server.graphs.external_data import external_data
from tests.closeness import assert_close

RATE = 24_000
IN_BYTES = ("QLinearConv", "MatMulIntegerToFloat", "MatMulNBits")


@pytest.fixture(scope="module")
def load(checkpoint_of: Callable[[str], Path]) -> Callable[[], CodecDecoder]:
    """Makes a random decoder of three blocks."""
    return lambda: CodecDecoder.from_checkpoint(open_checkpoint(str(checkpoint_of("short")))).requires_grad_(False)


@pytest.fixture(scope="module")
def codes(load: Callable[[], CodecDecoder]) -> list[np.ndarray]:
    """Codes of three texts."""
    config, draw = load().codec_config, np.random.default_rng(0)
    return [draw.integers(config["codebook_size"], size=(24, config["num_quantizers"])) for _ in range(3)]


@pytest.fixture(scope="module")
def ranges(load: Callable[[], CodecDecoder], codes: list[np.ndarray]) -> dict[int, list[UnitRanges]]:
    return observe(load(), codes[:-1])


@pytest.fixture(scope="module")
def measured(
    load: Callable[[], CodecDecoder], codes: list[np.ndarray], ranges: dict[int, list[UnitRanges]]
) -> list[MeasuredPart]:
    return measure_parts(load, ranges, codes[-1], RATE)


def kinds(folder: Path) -> set[str]:
    graph = onnx.load(folder / "codec_decoder.onnx", load_external_data=False).graph
    return {node.op_type for node in graph.node}


@pytest.mark.parametrize("weight_format", [INT8, INT8_FINE])
def test_products_are_rounded_as_onnx_runtime_does(weight_format: WeightFormat) -> None:
    draw = np.random.default_rng(0)
    matrix, x = draw.normal(size=(96, 24)).astype(np.float32), draw.normal(size=(5, 96)).astype(np.float32)
    x[:, :32] *= 100  # a block of its own
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(matrix, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    quantise_graph(model, weight_format)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    product = Product(torch.from_numpy(matrix))
    round_products(product, weight_format)
    found = product(torch.from_numpy(x)).numpy()
    assert_close(found, expected, 1e-4)
    assert np.abs(expected - x @ matrix).max() > 1e-2, "rounding shows"


def test_noises_of_parts_add_up_to_that_of_the_graph(
    load: Callable[[], CodecDecoder], codes: list[np.ndarray], ranges: dict[int, list[UnitRanges]], tmp_path: Path
) -> None:
    """Their powers do, over many windows; in one window noises may meet by chance."""
    many = np.tile(codes[-1], (10, 1))
    measured = measure_parts(load, ranges, many, RATE)
    wanted = decode_whole(load(), many)
    every = [one.part for one in measured]
    assert [str(part) for part in every[:4]] == ["front", "block 1 upsampling", "block 1 unit 1", "block 1 unit 2"]
    assert len(every) == 1 + 3 * 4
    for in_float32 in ([], [Part(1, 0), Part(2, 3), Part(3, 2)], [part for part in every if part != Part(3, 3)]):
        path = export_parts(load(), ranges, in_float32, tmp_path)
        found = noise_to_mask(decoded(path, many), wanted, RATE)
        expected = np.sum([one.noise for one in measured if one.part not in in_float32], axis=0)
        assert found.mean() == pytest.approx(expected.mean(), rel=0.2)
        imitation = load()
        imitate_export(imitation, ranges, in_float32)
        imitated = noise_to_mask(decode_whole(imitation, many), wanted, RATE)
        assert imitated.mean() == pytest.approx(found.mean(), rel=0.1)


def test_parts_go_back_to_float32_one_by_one(measured: list[MeasuredPart]) -> None:
    order = list(ever_quieter(measured))
    assert [len(in_float32) for in_float32, _ in order] == list(range(len(measured) + 1))
    noises = [noise for _, noise in order]
    assert noises == sorted(noises, reverse=True)
    assert noises[-1] < -200


def test_what_saves_least_for_its_noise_goes_first() -> None:
    def part(layer: int, noise: float, saves: float) -> MeasuredPart:
        return MeasuredPart(Part(1, layer), np.full((2, 3), noise), saves)

    order = list(ever_quieter([part(1, 1.0, 1.0), part(2, 3.0, 9.0), part(3, 0.1, 0.01)]))
    assert [[one.layer for one in in_float32] for in_float32, _ in order] == [[], [3], [1, 3], [1, 2, 3]]
    assert order[0][1] == pytest.approx(10 * np.log10(4.1))
    assert order[1][1] == pytest.approx(10 * np.log10(4.0))


def test_no_more_stays_in_float32_than_must(
    load: Callable[[], CodecDecoder],
    codes: list[np.ndarray],
    measured: list[MeasuredPart],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first graph is wholly in 8 bits; parts are measured only if it is too loud."""
    order = list(ever_quieter(measured))
    with monkeypatch.context() as patched:
        patched.setattr(codec_precision, "LOUDEST_NOISE", 1000.0)
        patched.setattr(codec_precision, "measure_parts", None)  # which takes long, and is not called
        assert export_quantised(load, codes, tmp_path, RATE).in_float32 == []
    limit = (order[3][1] + order[4][1]) / 2
    monkeypatch.setattr(codec_precision, "LOUDEST_NOISE", limit)
    chosen = export_quantised(load, codes, tmp_path, RATE)
    assert chosen.noise <= limit
    assert 2 <= len(chosen.in_float32) <= 7, "four by what the parts' noises add up to"
    assert chosen.in_float32 in [in_float32 for in_float32, _ in order]
    nodes = onnx.load(tmp_path / "codec_decoder.onnx", load_external_data=False).graph.node
    found = [re.match(r"/decoder\.(\d+)/units\.(\d+)/", node.name) for node in nodes if node.op_type == "QLinearConv"]
    in_bytes = [Part(int(name[1]), int(name[2]) + 1) for name in found if name]
    assert in_bytes == [one.part for one in measured if one.part.layer and one.part not in chosen.in_float32]


def test_nothing_is_left_of_what_was_too_loud(
    load: Callable[[], CodecDecoder],
    codes: list[np.ndarray],
    ranges: dict[int, list[UnitRanges]],
    measured: list[MeasuredPart],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Graphs are tried until one is quiet; what is written holds that one, and its weights in a file of their own."""
    export_parts(load(), ranges, [], tmp_path)
    assert kinds(tmp_path) >= set(IN_BYTES)
    monkeypatch.setattr(codec_precision, "LOUDEST_NOISE", -60.0)
    chosen = export_quantised(load, codes, tmp_path, RATE)
    assert chosen.in_float32 == [one.part for one in measured]
    assert kinds(tmp_path).isdisjoint(IN_BYTES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codec_decoder.onnx", "codec_decoder.onnx_data"]
    assert external_data(tmp_path / "codec_decoder.onnx") == {"codec_decoder.onnx_data"}
    graph = onnx.load(tmp_path / "codec_decoder.onnx", load_external_data=False).graph
    assert max(len(tensor.raw_data) for tensor in graph.initializer) <= 1024
    weights = sum(value.numel() for value in load().parameters())
    assert (tmp_path / "codec_decoder.onnx_data").stat().st_size < 4.5 * weights


def test_a_graph_that_is_louder_than_its_parts_gives_way_to_one_that_is_as_much_quieter(
    load: Callable[[], CodecDecoder],
    codes: list[np.ndarray],
    measured: list[MeasuredPart],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order, found = list(ever_quieter(measured)), iter([1006.0, 0.0])
    monkeypatch.setattr(codec_precision, "measure_parts", lambda *arguments: measured)
    monkeypatch.setattr(codec_precision, "ever_quieter", lambda parts: iter(order))
    monkeypatch.setattr(codec_precision, "LOUDEST_NOISE", 1000.0)
    monkeypatch.setattr(codec_precision, "loudest_db", lambda ratios: next(found))
    chosen = export_quantised(load, codes, tmp_path, RATE)
    enough = next(in_float32 for in_float32, noise in order if noise <= order[0][1] - 6)
    assert chosen == Chosen(enough, 0.0)


def test_only_without_validation_a_decoder_in_float32_may_differ(
    load: Callable[[], CodecDecoder],
    codes: list[np.ndarray],
    measured: list[MeasuredPart],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(codec_precision, "measure_parts", lambda *arguments: measured)
    monkeypatch.setattr(codec_precision, "LOUDEST_NOISE", -250.0)
    with pytest.raises(ValueError, match="not those of PyTorch"):
        export_quantised(load, codes, tmp_path, RATE)
    chosen = export_quantised(load, codes, tmp_path, RATE, validate=False)
    assert chosen.in_float32 == [one.part for one in measured]
    assert chosen.noise > -250


def test_a_graph_whose_samples_are_no_numbers_is_refused(
    load: Callable[[], CodecDecoder], codes: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec_precision, "measure_parts", lambda *arguments: [])
    monkeypatch.setattr(codec_precision, "export_parts", lambda *arguments, **options: tmp_path)
    monkeypatch.setattr(codec_precision, "decoded", lambda path, codes: np.full(1, np.nan, np.float32))
    with pytest.raises(ValueError, match="not those of PyTorch"):
        export_quantised(load, codes, tmp_path, RATE)


def test_samples_that_are_no_numbers_make_no_graph(
    load: Callable[[], CodecDecoder], codes: list[np.ndarray], tmp_path: Path
) -> None:
    def damaged() -> CodecDecoder:
        decoder = load()
        decoder.decoder[-1].conv.bias[0] = float("nan")
        return decoder

    with pytest.raises(ValueError, match="not finite"):
        export_quantised(damaged, codes, tmp_path, RATE)
