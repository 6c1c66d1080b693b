"""The count of weight bytes that a run reads."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.weight_reads import weight_reads
from server.manifest import WeightReads


def graph_of(name: str, nodes: list[onnx.NodeProto], **tensors: np.ndarray) -> onnx.GraphProto:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(value, key) for key, value in tensors.items()]
    return helper.make_graph(nodes, name, [], [output], stored)


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def product(weight: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", ["x", weight], ["y"])


def test_a_loop_reads_its_body_each_time_and_its_branches_once() -> None:
    heads = [graph_of(name, [product(name)], **{name: floats(10, 100)}) for name in ("head_0", "head_1")]
    pick = helper.make_node("If", ["which"], ["y"], then_branch=heads[0], else_branch=heads[1])
    body = graph_of("body", [product("w"), pick], w=floats(10, 30), bias=floats(30))
    quantised = ["x", "bytes", "scales"]
    nodes = [
        helper.make_node("MatMulNBits", quantised, ["a"], domain="com.microsoft"),
        helper.make_node("Gather", ["table", "ids"], ["b"]),
        helper.make_node("Loop", ["steps", ""], ["y"], body=body),
    ]
    tensors = {"bytes": np.zeros((5, 2, 16), np.uint8), "scales": floats(10), "table": floats(1000)}
    graph = graph_of("outer", nodes, **tensors, steps=np.array(15))
    assert weight_reads(graph) == WeightReads(once=160 + 40 + 2 * 4000, looped=1200, passes=15)
    assert weight_reads(graph).total == 8200 + 15 * 1200


def test_a_graph_without_a_loop() -> None:
    graph = graph_of(
        "plain", [helper.make_node("Conv", ["x", "kernel", "bias"], ["y"])], kernel=floats(4, 3, 7), bias=floats(4)
    )
    assert weight_reads(graph) == WeightReads(once=4 * (84 + 4))
