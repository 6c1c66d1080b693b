"""The loop around the code predictor's step: what its steps do not do again."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from export.graphs.frame_loop import _take_unchanging


def constant(name: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [1], [1]))


def test_what_follows_from_parameters_alone_is_made_once() -> None:
    node = helper.make_node
    nodes = [
        constant("axis"),
        constant("other"),
        node("Unsqueeze", ["temperature", "axis"], ["column"]),
        node("Div", ["logits", "column"], ["scores"]),
        node("Unsqueeze", ["uniform", "axis"], ["uniforms"]),
        node("ReduceMax", ["top_k"], ["most"]),
        node("Reshape", ["most", "other"], ["count"]),
        node("TopK", ["scores", "count"], ["values", "indices"]),
    ]
    step = helper.make_graph(nodes, "step", [], [])
    taken = _take_unchanging(step)
    assert [(each.op_type, [*each.input]) for each in taken if each.op_type != "Constant"] == [
        ("Unsqueeze", ["temperature", "axis.once"]),
        ("ReduceMax", ["top_k"]),
        ("Reshape", ["most", "other.once"]),
    ]
    # One constant is used on both sides, the other one only outside.
    assert [each.output[0] for each in step.node] == ["axis", "scores", "uniforms", "values"]
    assert [each.output[0] for each in taken[:2]] == ["axis.once", "other.once"]
