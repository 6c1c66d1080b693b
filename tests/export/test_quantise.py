"""Weight-only quantisation: the fit, the stored layout as ONNX Runtime reads it, and whole bundles."""

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

from export.convert import main as convert
from export.graphs.files import with_subgraphs
from export.quantise import INT4, INT8, PRECISIONS, WeightFormat, fit_blocks, quantise_graph
from server.engine.job import Job, Sampling
from server.engine.provider import open_bundle
from server.manifest import read_manifest
from tests.conversions import Conversion
from tests.parity.test_official import speak
from tests.rigged import with_states_of_another_version


def plain_rounding(blocks: torch.Tensor, bits: int) -> torch.Tensor:
    """Round to nearest with the largest weight on the edge."""
    top = 2 ** (bits - 1) - 1
    scale = blocks.abs().amax(-1, keepdim=True) / top
    return (blocks / scale).round().clamp(-top - 1, top) * scale


@pytest.mark.parametrize("bits", [4, 8])
def test_fitted_scales_beat_plain_rounding(bits: int) -> None:
    blocks = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    q, scales = fit_blocks(blocks, bits)
    assert q.min() >= -(2 ** (bits - 1))
    assert q.max() <= 2 ** (bits - 1) - 1
    fitted = (q * scales[:, None] - blocks).square().mean()
    plain = (plain_rounding(blocks, bits) - blocks).square().mean()
    assert fitted < (0.85 if bits == 4 else 1.0) * plain


def test_a_block_of_zeros_stays_zero() -> None:
    q, scales = fit_blocks(torch.zeros(2, 32), 4)
    assert (q * scales[:, None] == 0).all()
    assert torch.isfinite(scales).all()


@pytest.mark.parametrize("how", [WeightFormat(8, 256), WeightFormat(8, 32), WeightFormat(4, 64), WeightFormat(4, 16)])
@pytest.mark.parametrize("inner", [256, 48, 40])
def test_onnx_runtime_reads_what_was_stored(how: WeightFormat, inner: int) -> None:
    random = np.random.default_rng(1)
    weight = random.normal(size=(inner, 24)).astype(np.float32)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", inner), ("y", 24))
    ]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    quantise_graph(model, how)
    (product,) = model.graph.node
    assert product.op_type == "MatMulNBits"
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = random.normal(size=(5, inner)).astype(np.float32)
    (found,) = session.run(None, {"x": x})
    expected = x @ weight
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < (0.02 if how.bits == 8 else 0.2)
    coarse = np.corrcoef(found.ravel(), expected.ravel())[0, 1]
    assert coarse > (0.9995 if how.bits == 8 else 0.98)


def test_a_format_that_no_matrix_takes_is_an_error() -> None:
    """Formats go by the names of nodes, which another version of the exporter may give otherwise."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 32]) for name in "xy"]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="/front/MatMul")
    weight = numpy_helper.from_array(np.ones((32, 32), np.float32), "w")
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(ValueError, match="no matrix of the graph has a name that begins with /back/"):
        quantise_graph(model, WeightFormat(8, 32), formats_by_prefix={"/front/": WeightFormat(8, 16), "/back/": INT8})


def test_blocks_divide_the_inner_axis_where_they_can() -> None:
    assert INT8.fitting(1024).block_size == INT8.block_size
    assert INT4.fitting(48).block_size == 16
    assert INT4.fitting(40).block_size == 16


@pytest.mark.parametrize("precision", ["int8", "w8a8", "mixed", "int4"])
def test_a_quantised_bundle_speaks_and_says_how_well(precision: str, bundle_of: Callable[..., Path]) -> None:
    folder = bundle_of("short", precision)
    manifest = read_manifest(folder)
    assert manifest.precision == precision
    stored = {name: graph.precision for name, graph in manifest.graphs.items()}
    expected = {name: how.precision for name, how in PRECISIONS[precision].items()}
    assert stored == {"talker": "fp32", "code_predictor": "fp32", "codec_decoder": "int8"} | expected
    codes = manifest.parity["codes"]
    shares = {name: counts["equal"] / counts["compared"] for name, counts in codes.items()}
    # Weights of pure noise: agreement is far better than chance (1 in 512), and better with more bits.
    assert shares["codebook 0"] > (0.8 if expected["talker"] == "int8" else 0.3)
    assert shares["other codebooks"] > (0.8 if expected["code_predictor"] == "int8" else 0.3)
    # Noise of 34 dB below the speech or less; a wrong graph is off by about 1.
    assert 0 < manifest.parity["graphs"]["codec_decoder"]["relative_error"] < 0.1
    decoder = onnx.load(folder / "codec_decoder.onnx", load_external_data=False)
    assert "QLinearConv" in {node.op_type for node in decoder.graph.node}

    bundle = open_bundle(folder, provider="cpu", threads=1, slots=1)
    prompt = bundle.prompts.build("Hello", speaker="ryan", language="english", instruction=None)
    job = Job(prompt, Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0), seed=1, max_frames=6)
    _, samples = speak(bundle, job)
    assert len(samples) == 6 * manifest.sizes.codec.samples_per_frame
    assert np.isfinite(samples).all()
    assert samples.std() > 1e-3


def test_quantised_bundles_are_smaller(bundle_of: Callable[..., Path]) -> None:
    def size(precision: str, graph: str) -> int:
        return (bundle_of("short", precision) / f"{graph}.onnx_data").stat().st_size

    for graph in ("talker", "code_predictor"):
        assert size("int4", graph) < size("mixed", graph) < size("int8", graph) < 0.7 * size("fp32", graph)


def test_mixed_has_mlps_in_4_bits_and_attention_in_8(bundle_of: Callable[..., Path]) -> None:
    for graph in ("talker", "code_predictor"):
        model = onnx.load(bundle_of("short", "mixed") / f"{graph}.onnx", load_external_data=False)
        nodes = [node for inner in with_subgraphs(model.graph) for node in inner.node if node.op_type == "MatMulNBits"]
        bits = {node.name: next(one.i for one in node.attribute if one.name == "bits") for node in nodes}
        kinds = {("mlp" in name, "self_attn" in name, stored) for name, stored in bits.items()}
        assert kinds == {(True, False, 4), (False, True, 8), (False, False, 8)}, graph  # the last are heads


def test_verify_repeats_the_report_of_the_manifest(
    bundle_of: Callable[..., Path], checkpoint_of: Callable[[str], Path], capsys
) -> None:
    folder = bundle_of("short", "int8")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    capsys.readouterr()
    assert convert(["--verify", str(folder), "--model", str(checkpoint_of("short"))]) == 0
    printed = capsys.readouterr().out
    for name, codes in read_manifest(folder).parity["codes"].items():
        (equal,) = re.findall(rf"{name}: (\d+) of {codes['compared']} ", printed)
        # Equal on the machine that converted it; int8 kernels of another may round otherwise.
        assert abs(int(equal) - codes["equal"]) <= 0.03 * codes["compared"]
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before
    assert convert(["--verify", str(folder), "--model", str(checkpoint_of("tiny"))]) == 1
    assert "was not made of" in capsys.readouterr().err


def test_verify_refuses_a_bundle_of_another_version(
    bundle_of: Callable[..., Path], checkpoint_of: Callable[[str], Path], tmp_path: Path, capsys
) -> None:
    older = with_states_of_another_version(bundle_of("short", "fp16"), tmp_path / "older")
    assert convert(["--verify", str(older), "--model", str(checkpoint_of("short"))]) == 1
    assert "keeps its states as another version does; convert the checkpoint again" in capsys.readouterr().err


def test_int4_says_that_it_hurts(conversion_of: Callable[..., Conversion]) -> None:
    assert "int4 is known to hurt" in conversion_of("short", "int4").printed
    assert "int4 is known to hurt" not in conversion_of("short", "mixed").printed
