"""Weights stored in half precision: the graph computes what it did, from half the bytes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.halves import store_halves
from export.weight_reads import weight_reads

WIDTH = 64


def product(weight: np.ndarray) -> onnx.ModelProto:
    """`x @ weight`."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH]) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    graph = helper.make_graph([node], "product", values[:1], values[1:], [numpy_helper.from_array(weight, "weight")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.linspace(-1, 1, WIDTH, dtype=np.float32)[None]})[0]


@pytest.fixture
def weight() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float16).astype(np.float32)


def test_nothing_changes_but_the_size(weight: np.ndarray) -> None:
    model = product(weight)
    expected, reads, size = run(model), weight_reads(model.graph), model.ByteSize()
    store_halves(model)
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(run(model), expected)
    assert size - model.ByteSize() > 0.9 * weight.nbytes / 2
    assert weight_reads(model.graph) == reads


@pytest.mark.parametrize("value", [1 + 2**-12, 1e6, 1e-9])
def test_what_a_half_cannot_hold_stays(weight: np.ndarray, value: float) -> None:
    weight[3, 5] = value
    model = product(weight)
    store_halves(model)
    (stored,) = model.graph.initializer
    assert stored.data_type == TensorProto.FLOAT
    np.testing.assert_array_equal(numpy_helper.to_array(stored), weight)


def test_small_tensors_stay() -> None:
    model = product(np.ones((WIDTH, 8), np.float32))
    store_halves(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
