"""Products of bytes with a scale for each row: near to those of the numbers, and the same whatever rows are beside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from export.byte_rows import WEIGHT_BITS, multiply_bytes
from export.graphs.files import with_subgraphs


def session_of(weight: np.ndarray) -> onnxruntime.InferenceSession:
    """Two products by one matrix, as bytes."""
    inner, outputs = weight.shape
    sizes = {"x": inner, "y": outputs, "z": outputs}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1, size]) for name, size in sizes.items()
    }
    nodes = [helper.make_node("MatMul", ["x", "w"], [output], name=f"/{output}/MatMul") for output in ("y", "z")]
    stored = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["y"], values["z"]], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    multiply_bytes(model)
    assert "MatMul" not in {node.op_type for node in model.graph.node}
    largest = max(np.abs(numpy_helper.to_array(t)).max() for t in model.graph.initializer if t.name == "w.bytes")
    assert largest == 2 ** (WEIGHT_BITS - 1)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_rows_are_near_and_do_not_touch_each_other() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(300, 70)).astype(np.float32)
    session = session_of(weight)
    x = (
        random.normal(size=(6, 1, 300)).astype(np.float32)
        * np.array([1, 1e3, 1e-3, 0, 5, 1], np.float32)[:, None, None]
    )
    together, again = session.run(None, {"x": x})
    np.testing.assert_array_equal(together, again)
    alone = np.concatenate([session.run(["y"], {"x": x[row : row + 1]})[0] for row in range(6)])
    np.testing.assert_array_equal(alone, together)
    expected = x @ weight
    assert (np.abs(together - expected).max(-1) <= 0.03 * np.abs(expected).max(-1)).all()


def test_a_bundle_multiplies_bytes_everywhere(bundle_of: Callable[..., Path]) -> None:
    for name in ("talker", "code_predictor"):
        model = onnx.load(bundle_of("short", "w8a8") / f"{name}.onnx", load_external_data=False)
        kinds = {node.op_type for graph in with_subgraphs(model.graph) for node in graph.node}
        assert "MatMulIntegerToFloat" in kinds
        assert not kinds & {"MatMul", "MatMulNBits", "Gemm"}
