"""The codec decoder's carried state for a GPU: in buffers of many states, of which each row names those it means."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from server.graphs.codec_decoder import LEFT, TAKEN


def pool_states(model: onnx.ModelProto) -> None:
    """Rewrite, in place, a graph that carries `past.NAME` to `next.NAME`, both `[rows, ...]`.

    Both become buffers `[states, ...]`, meant to be one and the same memory: a row begins from its state's place in
    `TAKEN`, int64 `[rows]`, and leaves the next state in that of `LEFT`, int64 `[rows]`, which no row may begin from.
    """
    graph = model.graph
    carried = [value.name.removeprefix("past.") for value in graph.input if value.name.startswith("past.")]
    names = {f"{way}.{name}": f"{way}.{name}.rows" for name in carried for way in ("past", "next")}
    for node in graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    for value in (*graph.input, *graph.output):
        if value.name in names:
            value.type.tensor_type.shape.dim[0].dim_param = "states"
    node = helper.make_node
    taken = [node("Gather", [f"past.{name}", TAKEN], [f"past.{name}.rows"], axis=0) for name in carried]
    left = [
        node("ScatterND", [f"past.{name}", "left_index", f"next.{name}.rows"], [f"next.{name}"]) for name in carried
    ]
    nodes = [*taken, *graph.node, node("Unsqueeze", [LEFT, "left_axis"], ["left_index"]), *left]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "left_axis"))
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT64, ["rows"]) for name in (TAKEN, LEFT))
