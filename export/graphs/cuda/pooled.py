"""The codec decoder's carried state for a GPU: in buffers of many states, of which each row names those it means."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from server.graphs.cuda.codec_decoder import READ_PLACE, WRITE_PLACE


def pool_states(model: onnx.ModelProto) -> None:
    """Rewrite, in place, a graph that carries `past.NAME` to `next.NAME`, both `[rows, ...]`.

    Both become buffers `[states, ...]`, meant to be one and the same memory. A row begins from the state whose place
    `READ_PLACE` names, int64 `[rows]`, and leaves the next state at the place that `WRITE_PLACE` names, int64 `[rows]`,
    from which no row of this call may begin.
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
    reads = [node("Gather", [f"past.{name}", READ_PLACE], [f"past.{name}.rows"], axis=0) for name in carried]
    writes = [
        node("ScatterND", [f"past.{name}", "write_index", f"next.{name}.rows"], [f"next.{name}"]) for name in carried
    ]
    nodes = [*reads, *graph.node, node("Unsqueeze", [WRITE_PLACE, "write_axis"], ["write_index"]), *writes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "write_axis"))
    places = (READ_PLACE, WRITE_PLACE)
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT64, ["rows"]) for name in places)
