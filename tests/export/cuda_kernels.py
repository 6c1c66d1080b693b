"""What ONNX Runtime's CUDA execution provider has kernels for, as far as our graphs ask.

From `docs/OperatorKernels.md` of https://github.com/microsoft/onnxruntime (section CUDAExecutionProvider, the newest
entry at opset 18 or below; commit 001d12d2623fd411ce0f83d05abb5e82304a3389), and the kernels' declarations for inputs
that they take from the host. A later version may have more; a graph that keeps to these has no node on the CPU but
for the arithmetic of shapes, which ONNX Runtime puts there on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto as T

F32, F16, BF16, I32, I64, BOOL = T.FLOAT, T.FLOAT16, T.BFLOAT16, T.INT32, T.INT64, T.BOOL
_FLOATS, _ALL = {F32, F16, BF16}, {F32, F16, BF16, I32, I64, BOOL}
_NUMBERS = _FLOATS | {I32, I64}

_MOVED = """Cast Concat Expand Gather GatherElements Identity Reshape Shape Slice Split Squeeze Transpose Unsqueeze
ConstantOfShape ScatterElements ScatterND"""
_COUNTED = "Add Sub Mul Div Min Pow ReduceSum Mod"
_COMPUTED = """MatMul Gemm Sigmoid Exp Sqrt Erf Softmax SimplifiedLayerNormalization SkipSimplifiedLayerNormalization
LayerNormalization"""
_COMPARED = "Less LessOrEqual Greater GreaterOrEqual Equal"
_NO_BF16 = "Conv ConvTranspose Cos Sin Round Reciprocal"

KERNELS: dict[str, set[int]] = {
    **dict.fromkeys(_MOVED.split(), _ALL),
    **dict.fromkeys(_COUNTED.split(), _NUMBERS),
    **dict.fromkeys(_COMPUTED.split(), _FLOATS),
    **{kind: {F32, F16, I32, I64} for kind in _COMPARED.split()},
    **{kind: {F32, F16} for kind in _NO_BF16.split()},
    "Clip": {F32, F16, I64},
    "CumSum": {F32, F16, I32, I64},
    "TopK": {F32, F16, I32, I64},
    "ReduceMean": {F32, F16, I32},
    "ReduceMax": {F32, F16, I32, I64},
    "ReduceMin": {F32, F16, I32, I64},
    "Range": {F32, I32, I64},
    "Pad": {F32, F16, BOOL},
    "Where": {BOOL},
    "And": {BOOL},
    "Or": {BOOL},
    "Not": {BOOL},
    "GroupQueryAttention": {F16, BF16},
    "MatMulNBits": _FLOATS,
}
"""Types of the first input."""
WHERE = {F32, F16, BF16, I32, I64}
"""Of the second input of `Where` at opset 16."""

ON_HOST = {
    "Reshape": {1}, "Expand": {1}, "Slice": {1, 2, 3, 4}, "Split": {1}, "Squeeze": {1}, "Unsqueeze": {1},
    "TopK": {1}, "CumSum": {1}, "ConstantOfShape": {0}, "GroupQueryAttention": {6}, "Range": {0, 1, 2}, "Clip": {1, 2},
    "Pad": {1, 2}, "ReduceSum": {1}, "ReduceMean": {1},
}  # fmt: skip
"""Inputs that a kernel reads on the host: what a kernel on the device computes would be copied, and waited for."""

_TO_BOOL = {"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "And", "Or", "Not"}
_SAME_TYPES = {"Add", "Sub", "Mul", "Div", "Min", "MatMul", "Concat", "SkipSimplifiedLayerNormalization"}


@dataclass(frozen=True)
class Fault:
    """A node that CUDA would not run as it should."""

    node: str
    why: str


def faults(graph: onnx.GraphProto) -> Iterator[Fault]:
    """Nodes without a CUDA kernel, with inputs of unlike types, or with host inputs that the device computes."""
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    bound = {value.name for value in graph.input}  # wherever the caller likes
    constant = {tensor.name for tensor in graph.initializer}
    shapes: set[str] = set()  # what is computed from shapes alone, on the host
    for node in graph.node:
        kind, name, outputs = node.op_type, node.name or node.output[0], set(node.output)
        if kind == "Constant":
            types[node.output[0]] = node.attribute[0].t.data_type
        if kind not in KERNELS | {"Constant": set()}:
            yield Fault(name, f"{kind} has no CUDA kernel, or none is listed")
            return
        used, read_on_host = [i for i in node.input if i], ON_HOST.get(kind, set())
        inputs = [types[i] if i else 0 for i in node.input]
        if set(used) <= constant:  # folded when the session opens
            constant |= outputs
        elif kind == "Shape" or (
            set(used) <= shapes | constant
            and not shapes & {node.input[i] for i in read_on_host if i < len(inputs)}  # the kernel's own host inputs
        ):
            shapes |= outputs
        else:
            yield from (Fault(name, why) for why in _missing(node, inputs))
            for i in sorted(read_on_host):
                if i < len(inputs) and node.input[i] and node.input[i] not in bound | constant | shapes:
                    yield Fault(name, f"{kind} waits for {node.input[i]} to come to the host")
        if kind != "Constant":
            types |= {output: _output_type(node, place, inputs) for place, output in enumerate(node.output)}


def _missing(node: onnx.NodeProto, inputs: list[int]) -> Iterator[str]:
    if inputs[0] not in KERNELS[node.op_type] or (node.op_type == "Where" and inputs[1] not in WHERE):
        yield f"{node.op_type} has no CUDA kernel for types {inputs}"
    if node.op_type in _SAME_TYPES and len({t for t in inputs if t}) > 1:
        yield f"{node.op_type} of unlike types {inputs}"
    if node.op_type == "MatMulNBits" and inputs[2] != inputs[0]:
        yield f"{node.op_type} with scales of another type {inputs}"


def _output_type(node: onnx.NodeProto, place: int, inputs: list[int]) -> int:
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Cast":
        return int(attributes["to"])
    if node.op_type == "ConstantOfShape":
        return int(attributes["value"].data_type) if "value" in attributes else F32
    if node.op_type in _TO_BOOL:
        return BOOL
    if node.op_type == "Shape" or (node.op_type == "TopK" and place == 1):
        return I64
    return inputs[1] if node.op_type == "Where" else inputs[0]
