"""Half-precision storage: what a checkpoint keeps in 16 bits takes no more room in the bundle.

Weights in float16 are float32 again when ONNX Runtime opens the graph (it folds the casts); tables in bfloat16 stay so,
and the rows that are looked up are widened. Neither changes a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graphs.files import with_subgraphs

SMALLEST = 1024
"""Values of a tensor for which a cast is worth its node."""


def store_halves(model: onnx.ModelProto) -> None:
    """Store, in place, each large float32 weight of the main graph as float16 and a `Cast`, if that is exact."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or prod(tensor.dims) < SMALLEST:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def stored_as(nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """The stored tensor behind each weight that `store_halves` wrote, by the weight's name."""
    return {
        node.output[0]: node.input[0] for node in nodes if node.op_type == "Cast" and node.input[0].endswith(".half")
    }


def store_tables_in_bfloat16(model: onnx.ModelProto) -> None:
    """Store, in place, each large float32 table that rows are looked up in as bfloat16, if that is exact.

    The rows are widened after the look-up, so that the table takes half the memory too, and not only half the room.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    narrowed: set[str] = set()
    for graph in with_subgraphs(model.graph):
        nodes = []
        for node in graph.node:
            nodes.append(node)
            tensor = tensors.get(node.input[0]) if node.op_type == "Gather" else None
            if tensor is None or not (tensor.name in narrowed or _narrow(tensor)):
                continue
            narrowed.add(tensor.name)
            (rows,) = node.output
            node.output[0] = f"{rows}.bfloat16"
            nodes.append(helper.make_node("Cast", [node.output[0]], [rows], to=TensorProto.FLOAT))
        del graph.node[:]
        graph.node.extend(nodes)


def _narrow(tensor: TensorProto) -> bool:
    """Store a tensor as bfloat16, the upper half of a float32, if it is large and its lower halves are zeros."""
    if tensor.data_type != TensorProto.FLOAT or prod(tensor.dims) < SMALLEST:
        return False
    bits = np.ascontiguousarray(numpy_helper.to_array(tensor)).view(np.uint32)
    if (bits & 0xFFFF).any():
        return False
    upper = (bits >> 16).astype("<u2")
    tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.BFLOAT16, tensor.dims, upper.tobytes(), raw=True))
    return True
