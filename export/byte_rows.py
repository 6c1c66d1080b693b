"""Products of bytes whose rows do not touch each other: one scale for each row of activations and each output.

Every row is divided by its largest value, so that one scale and zero point, which are constants, fit all rows. The sums
are of integers and so the same in any order, and what is done to them is done to each value by itself: a row comes out
the same however many rows are beside it. `MatMulNBits` adds in another order for one row than for several.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from export.graphs.files import CONTRIB_DOMAIN, with_subgraphs
from export.quantise import fit_blocks

WEIGHT_BITS = 7
"""Bits of a weight. Processors without VNNI add pairs of products in 16 bits, for which 8 are too many."""
_STEP, _ZERO = np.array(1 / 127, np.float32), np.array(128, np.uint8)
"""Scale and zero point of rows that reach from -1 to 1."""


def multiply_bytes(model: onnx.ModelProto) -> None:
    """Replace, in place, every `MatMul` by a stored float32 matrix, in the graph and its subgraphs."""
    for graph in with_subgraphs(model.graph):
        matrices = {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.data_type == TensorProto.FLOAT}
        nodes: list[onnx.NodeProto] = []
        replaced: dict[str, list[TensorProto]] = {}
        for node in graph.node:
            if node.op_type != "MatMul" or node.input[1] not in matrices:
                nodes.append(node)
                continue
            name = node.input[1]
            nodes += _product(node)
            if name not in replaced:
                replaced[name] = _stored(matrices[name])
        kept = [tensor for tensor in graph.initializer if tensor.name not in replaced]
        kept += [tensor for tensors in replaced.values() for tensor in tensors]
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend(kept)
        graph.node.extend(nodes)
    if CONTRIB_DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(CONTRIB_DOMAIN, 1))


def _product(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    (source, matrix), (output,) = node.input, node.output
    absolute, largest, unit, rounded, sums = (
        f"{output}.{part}" for part in ("absolute", "largest", "unit", "bytes", "sums")
    )
    step, zero = f"{matrix}.step", f"{matrix}.zero"
    weights = [f"{matrix}.bytes", step, f"{matrix}.scales", zero]
    return [
        helper.make_node("Abs", [source], [absolute]),
        helper.make_node("ReduceMax", [absolute, f"{matrix}.axis"], [largest], keepdims=1),
        # A row of zeros becomes numbers that are none, and bytes of any value, whose sums are multiplied by 0 below.
        helper.make_node("Div", [source, largest], [unit]),
        helper.make_node("QuantizeLinear", [unit, step, zero], [rounded]),
        helper.make_node("MatMulIntegerToFloat", [rounded, *weights], [sums], name=node.name, domain=CONTRIB_DOMAIN),
        helper.make_node("Mul", [sums, largest], [output]),
    ]


def _stored(matrix: TensorProto) -> list[TensorProto]:
    columns = torch.from_numpy(np.ascontiguousarray(numpy_helper.to_array(matrix).T))
    q, scales = fit_blocks(columns, WEIGHT_BITS)
    values = {
        "bytes": q.T.contiguous().numpy().astype(np.int8),
        "scales": scales.numpy(),
        "step": _STEP,
        "zero": _ZERO,
        "axis": np.array([-1], np.int64),
    }
    return [numpy_helper.from_array(value, f"{matrix.name}.{name}") for name, value in values.items()]
