"""Half-precision storage: what a checkpoint keeps in float16 takes no more room in the bundle.

The weights are float32 again when ONNX Runtime opens the graph (it folds the casts), so that nothing else changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

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
