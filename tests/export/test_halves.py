"""Weights stored in half precision: the graph computes what it did, from half the bytes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.halves import store_halves, store_tables_in_bfloat16
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


def looked_up(table: np.ndarray) -> onnx.ModelProto:
    """Rows of a table, looked up in a loop of two steps and once outside of it, summed."""
    value, node = helper.make_tensor_value_info, helper.make_node
    body = helper.make_graph(
        [
            node("Gather", ["table", "ids"], ["row"], axis=0),
            node("Add", ["sum", "row"], ["next"]),
            node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            value("step", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("sum", TensorProto.FLOAT, [2, WIDTH]),
        ],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [2, WIDTH])],
    )
    graph = helper.make_graph(
        [
            node("Gather", ["table", "ids"], ["first"], axis=0),
            node("Loop", ["steps", "always", "first"], ["y"], body=body),
        ],
        "looked_up",
        [value("ids", TensorProto.INT64, [2])],
        [value("y", TensorProto.FLOAT, [2, WIDTH])],
        [
            numpy_helper.from_array(array, name)
            for name, array in (("table", table), ("steps", np.array(2)), ("always", np.array(True)))
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def rows_of(model: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.array([5, 2])})[0]


def test_a_table_in_bfloat16_gives_the_same_rows() -> None:
    values = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    table = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    model = looked_up(table)
    size = model.ByteSize()
    store_tables_in_bfloat16(model)
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(rows_of(model), 3 * table[[5, 2]])
    assert size - model.ByteSize() > 0.9 * table.nbytes / 2


def test_a_table_that_bfloat16_cannot_hold_stays() -> None:
    table = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    model = looked_up(table)
    before = model.SerializeToString(deterministic=True)
    store_tables_in_bfloat16(model)
    assert model.SerializeToString(deterministic=True) == before
