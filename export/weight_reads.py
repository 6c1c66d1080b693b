"""How many weight bytes a run of a graph reads: what decoding costs at least."""

from __future__ import annotations

from math import prod

import onnx
from onnx import numpy_helper
from onnx.helper import tensor_dtype_to_np_dtype

from export.graphs.files import with_subgraphs
from export.halves import stored_as
from server.manifest import WeightReads

_HALF, _FLOAT32 = 2, 4
"""Bytes of a weight in half precision where it is stored, and where it is used."""
WEIGHT_NODES = frozenset(
    {"MatMul", "Gemm", "Conv", "ConvTranspose", "MatMulIntegerToFloat", "MatMulNBits", "QLinearConv"}
)


def weight_reads(graph: onnx.GraphProto) -> WeightReads:
    """Count the weights of a graph's matrix and convolution nodes.

    Those in a loop's body are read again in each pass; those in branches inside it, of which each pass takes another,
    once in all.

    Args:
        graph: with one `Loop` at most, whose number of passes is an initializer; its weights need not be loaded.
    """
    looping = [node for node in graph.node if node.op_type == "Loop"]
    bodies = [attribute.g for node in looping for attribute in node.attribute if attribute.name == "body"]
    branches = [inner for body in bodies for inner in list(with_subgraphs(body))[1:]]
    counts = [numpy_helper.to_array(t) for t in graph.initializer if t.name in {node.input[0] for node in looping}]
    return WeightReads(
        once=_weights(graph) + sum(map(_weights, branches)),
        looped=sum(map(_weights, bodies)),
        passes=sum(map(int, counts)),
    )


def _weights(graph: onnx.GraphProto) -> int:
    """Bytes of the initializers that this graph's own nodes multiply by, each as often as a node does."""
    sizes = {t.name: prod(t.dims) * tensor_dtype_to_np_dtype(t.data_type).itemsize for t in graph.initializer}
    sizes |= {name: sizes[stored] // _HALF * _FLOAT32 for name, stored in stored_as(graph.node).items()}
    return sum(sizes.get(name, 0) for node in graph.node if node.op_type in WEIGHT_NODES for name in node.input[1:])
