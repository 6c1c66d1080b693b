"""`python -m benchmarks.kernels`: the product with one scale for each row and column."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.kernels import bytes_by_row, dynamic, same_rows, session_on


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_rows_of_bytes_do_not_touch_each_other(kind: type) -> None:
    assert same_rows(bytes_by_row(kind), 1) == [1, 2, 4]
    assert same_rows(dynamic, 1) == []  # has one scale for all rows


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_a_product_of_bytes_is_near_that_of_its_numbers(kind: type) -> None:
    nodes, tensors = bytes_by_row(kind)("x", "y", 256, 64, np.random.default_rng(0))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size]) for name, size in (("x", 256), ("y", 64))
    ]
    session = session_on(helper.make_graph(nodes, "bytes", values[:1], values[1:], tensors), 1)
    x = np.random.default_rng(1).normal(size=(3, 256)).astype(np.float32) * np.array([[1], [30], [0]], np.float32)
    (found,) = session.run(None, {"x": x})
    expected = x @ (stored["y.w"] * stored["y.s"])
    error = np.abs(found - expected).max(axis=1)
    assert (error <= 0.02 * np.abs(expected).max(axis=1)).all()
    assert not found[2].any()
