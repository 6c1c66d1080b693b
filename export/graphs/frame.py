"""A whole frame as one graph: code 0 is drawn, the code predictor's steps follow, the talker's next input is summed.

What the steps are, a loop or one after the other, is the caller's: `export.graphs.frame_loop` is for the CPU and
`export.graphs.cuda.frame_unrolled` for a GPU. The graph's inputs and outputs are the same for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graphs.code_predictor import CodePredictorStep
from export.graphs.files import CONTRIB_DOMAIN, save_graph
from export.graphs.first_code import FirstCode
from export.graphs.graph import OPSET

CODE_0_EMBEDDING = "code_0_embedding"


class Steps(NamedTuple):
    """The code predictor's steps as a part of the frame's graph, with the initializers that they need.

    They find the outputs of `FirstCode` under their names, and `first_embedding` `[rows, talker hidden]`, what
    `CODE_0_EMBEDDING` has for code 0. They leave `later_codes` int64 `[rows, groups - 1]`, `embedding` float32
    `[rows, talker hidden]`, the sum of all codes' embeddings, and `logits` float32 `[rows, groups - 1, codes]`.
    """

    nodes: Sequence[onnx.NodeProto]
    tensors: Sequence[TensorProto]


def frame_graph(first_path: Path, steps: Steps, step: CodePredictorStep, path: Path) -> None:
    """Write the frame's graph.

    Inputs: those of `FirstCode`, and `text_embeds` float32 `[rows, talker hidden]`, the text side of the position that
    the talker is fed next. Outputs: `codes` int64 `[rows, groups]`; `next_seen` and `lengths` of `FirstCode`;
    `talker_inputs` float32 `[rows, 1, talker hidden]`, what the talker is fed next; `logits` float32
    `[rows, groups - 1, codes]`, for measurements.

    Args:
        first_path: the exported `FirstCode`.
        steps: what follows it; `CODE_0_EMBEDDING` is one of the tensors.
        step: the step's module, for the sizes.
        path: where to write the graph.
    """
    model = onnx.load(first_path)
    first, node, value = _with_own_names(model.graph), helper.make_node, helper.make_tensor_value_info
    nodes = [
        *first.node,
        node("Gather", [CODE_0_EMBEDDING, "code_0"], ["first_embedding"], axis=0),
        *steps.nodes,
        node("Add", ["embedding", "text_embeds"], ["next_inputs"]),
        node("Unsqueeze", ["next_inputs", "column"], ["talker_inputs"]),
        node("Unsqueeze", ["code_0", "column"], ["code_0.column"]),
        node("Concat", ["code_0.column", "later_codes"], ["codes"], axis=1),
    ]
    declared = {each.name: each for each in (*first.input, *first.output)}
    later, hidden = step.groups - 1, step.talker_hidden_size
    graph = helper.make_graph(
        nodes,
        "frame",
        [*(declared[name] for name in FirstCode.INPUTS), value("text_embeds", TensorProto.FLOAT, ["rows", hidden])],
        [
            value("codes", TensorProto.INT64, ["rows", step.groups]),
            declared["next_seen"],
            value("talker_inputs", TensorProto.FLOAT, ["rows", 1, hidden]),
            declared["lengths"],
            value("logits", TensorProto.FLOAT, ["rows", later, step.codes]),
        ],
        [*steps.tensors, numpy_helper.from_array(np.array([1], np.int64), "column"), *first.initializer],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB_DOMAIN, 1)]
    save_graph(helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version), path)


def take_constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Take tables out of the nodes in which the exporter leaves buffers; by name, as initializers."""
    tables: dict[str, TensorProto] = {}
    kept = []
    for node in graph.node:
        value = node.attribute[0].t if node.op_type == "Constant" else None
        if value is None or len(value.dims) < 2:
            kept.append(node)
            continue
        value.name = node.output[0]
        tables[value.name] = value
    del graph.node[:]
    graph.node.extend(kept)
    return tables


def _with_own_names(first: onnx.GraphProto) -> onnx.GraphProto:
    """The same graph with names, but those of inputs and outputs, that no other graph has."""
    kept = {value.name for value in (*first.input, *first.output)} | {""}
    for tensor in first.initializer:
        tensor.name = f"first.{tensor.name}"
    for node in first.node:
        node.name = f"first.{node.name}"
        for names in (node.input, node.output):
            names[:] = [name if name in kept else f"first.{name}" for name in names]
    return first
