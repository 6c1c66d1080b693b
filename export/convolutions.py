"""Static 8-bit quantisation of the codec decoder's convolutions.

The decoder's dilated convolutions are at a CPU's float32 peak; `QLinearConv` multiplies several times faster. What goes
into a convolution and what comes out of it is quantised channel by channel, with scales that are fixed when the bundle
is made: a sample then depends neither on the chunk that it is decoded in nor on the other rows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]

HEADROOM = 1.1
"""Of the loudest value that calibration saw: what is louder is clipped."""
LEVELS, MIDDLE = 127, 128
"""Steps on either side of an activation's zero, and where that lies in uint8."""
WEIGHT_LEVELS = 63
"""7 bits: two products of 8 bits would overflow the 16-bit sums of processors without VNNI."""
_SMALLEST = 1e-6
_RANGE = "range."
_BLOCK = re.compile(r"decoder\.(\d+)\.block\.")


def blocks(graph: onnx.GraphProto) -> list[int]:
    """Numbers of the upsampling blocks whose convolutions are in float32."""
    return sorted({int(_BLOCK.match(node.input[1])[1]) for node in _convolutions(graph)})  # type: ignore[index]


def _convolutions(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The convolutions of the residual units, which take most of the decoder's time."""
    for node in graph.node:
        if node.op_type == "Conv" and _BLOCK.match(node.input[1]):
            yield node


def watched(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The same graph with one more output for each value in question, the range of each of its channels.

    Returns:
        The graph, and the names of the values, to each of which an output `range_output(name)` float32 `[2, channels]`
        belongs: the smallest and the largest.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = list(dict.fromkeys(name for node in _convolutions(copy.graph) for name in (node.input[0], node.output[0])))
    copy.graph.initializer.append(numpy_helper.from_array(np.array([0, 2]), "rows_and_steps"))
    copy.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first_axis"))
    for name in names:
        ends = []
        for kind in ("ReduceMin", "ReduceMax"):
            end = f"{name}.{kind}"
            ends.append(f"{end}.row")
            copy.graph.node.append(helper.make_node(kind, [name, "rows_and_steps"], [end], keepdims=0))
            copy.graph.node.append(helper.make_node("Unsqueeze", [end, "first_axis"], ends[-1:]))
        copy.graph.node.append(helper.make_node("Concat", ends, [range_output(name)], axis=0))
        copy.graph.output.append(helper.make_tensor_value_info(range_output(name), TensorProto.FLOAT, [2, None]))
    return copy, names


def range_output(name: str) -> str:
    """The output of a watched graph that tells a value's range."""
    return _RANGE + name


def _steps(ends: Floats) -> Floats:
    """Size of a channel's step, for a range `[2, channels]`."""
    steps: Floats = np.maximum(np.abs(ends).max(0) * np.float32(HEADROOM), np.float32(_SMALLEST)) / np.float32(LEVELS)
    return steps


def quantise_convolutions(model: onnx.ModelProto, ranges: dict[str, Floats], chosen: Collection[int]) -> None:
    """Let, in place, the convolutions of some upsampling blocks compute in 8 bits.

    The channels' scales are multiplications of their own, and go into the weights and the scales of their rows, so that
    all quantised tensors have the scale 1: ONNX Runtime computes `QLinearConv` with channels last, where its
    `QuantizeLinear` by channel is scalar and takes several times what the convolution does.

    Args:
        model: the codec decoder, in float32.
        ranges: smallest and largest value of each channel, `[2, channels]`, of every value that `watched` names.
        chosen: numbers of the blocks.
    """
    graph = model.graph
    wanted = {node.output[0] for node in _convolutions(graph) if int(_BLOCK.match(node.input[1])[1]) in chosen}  # type: ignore[index]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    shared = {"one": np.float32(1), "middle": np.uint8(MIDDLE)}
    added = [numpy_helper.from_array(np.asarray(value), f"quantised.{name}") for name, value in shared.items()]
    nodes: list[onnx.NodeProto] = []
    gone: set[str] = set()
    for node in graph.node:
        if node.output[0] not in wanted:
            nodes.append(node)
            continue
        weight, bias = (numpy_helper.to_array(weights[name]) for name in node.input[1:])
        gone.update(node.input[1:])
        tensors = _quantised(weight, bias, *(_steps(ranges[name]) for name in (node.input[0], node.output[0])))
        stem = node.input[1]
        added += [numpy_helper.from_array(value, f"{stem}.{name}") for name, value in tensors.items()]
        nodes += _product(node, stem)
    kept = [tensor for tensor in graph.initializer if tensor.name not in gone]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *added])
    graph.node.extend(nodes)


def _quantised(weight: Floats, bias: Floats, before: Floats, after: Floats) -> dict[str, NDArray[Any]]:
    scaled = weight * before[None, :, None]
    loudest = np.abs(scaled).max((1, 2))
    row = np.where(loudest > 0, loudest, 1).astype(np.float32) / WEIGHT_LEVELS
    return {
        "q": np.round(scaled / row[:, None, None]).astype(np.int8),
        "scales": row / after,
        "zeros": np.zeros(len(row), np.int8),
        "bias": np.round(bias / row).clip(-(2**31), 2**31 - 1).astype(np.int32),
        "before": (1 / before)[:, None],
        "after": after[:, None],
    }


def _product(node: onnx.NodeProto, stem: str) -> list[onnx.NodeProto]:
    source, result = node.input[0], node.output[0]
    one, middle = "quantised.one", "quantised.middle"
    product = helper.make_node(
        "QLinearConv",
        [f"{stem}.in", one, middle, f"{stem}.q", f"{stem}.scales", f"{stem}.zeros", one, middle, f"{stem}.bias"],
        [f"{stem}.out"],
        name=node.name,
    )
    product.attribute.extend(node.attribute)
    return [
        helper.make_node("Mul", [source, f"{stem}.before"], [f"{stem}.in.steps"]),
        helper.make_node("QuantizeLinear", [f"{stem}.in.steps", one, middle], [f"{stem}.in"]),
        product,
        helper.make_node("DequantizeLinear", [f"{stem}.out", one, middle], [f"{stem}.out.steps"]),
        helper.make_node("Mul", [f"{stem}.out.steps", f"{stem}.after"], [result]),
    ]
