"""Static 8-bit quantisation of the codec decoder's convolutions.

The decoder's dilated convolutions are at a CPU's float32 peak; `QLinearConv` multiplies several times faster. What goes
into a convolution and what comes out of it is quantised channel by channel, with scales that are fixed when the bundle
is made: a sample then depends neither on the chunk that it is decoded in nor on the other rows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]

HEADROOM = 0.1
"""Of the range that calibration saw, on both sides of it: what is beyond is clipped."""
STEPS, MIDDLE = 255, 128
"""Of an activation's range, and the zero that `QLinearConv` is told of; channels have their own around it."""
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


@dataclass(frozen=True)
class _Steps:
    """How the channels of a value are quantised: `scales` float32 and `zeros` uint8, both `[channels]`."""

    scales: Floats
    zeros: NDArray[np.uint8]

    @classmethod
    def of(cls, ends: Floats) -> _Steps:
        """For a range `[2, channels]`; 0 is always in it, and exact."""
        low, high = np.minimum(ends[0], 0), np.maximum(ends[1], 0)
        room = HEADROOM * (high - low)
        low, high = np.minimum(low - room, 0), np.maximum(high + room, 0)
        scales: Floats = (np.maximum(high - low, _SMALLEST) / STEPS).astype(np.float32)
        return cls(scales, np.round(-low / scales).clip(0, STEPS).astype(np.uint8))

    @property
    def shift(self) -> Floats:
        """By how many steps the zeros lie above the middle."""
        return self.zeros.astype(np.float32) - MIDDLE


def quantise_convolutions(model: onnx.ModelProto, ranges: dict[str, Floats], chosen: Collection[int]) -> None:
    """Let, in place, the convolutions of some upsampling blocks compute in 8 bits.

    `QLinearConv` knows one scale and one zero for what goes in, and one for what comes out: the scales of the channels
    go into the weights and into the scales of their rows, and their zeros into the bias.

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
        tensors = _quantised(weight, bias, *(_Steps.of(ranges[name]) for name in (node.input[0], node.output[0])))
        stem = node.input[1]
        added += [numpy_helper.from_array(value, f"{stem}.{name}") for name, value in tensors.items()]
        nodes += _product(node, stem)
    kept = [tensor for tensor in graph.initializer if tensor.name not in gone]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *added])
    graph.node.extend(nodes)


def _quantised(weight: Floats, bias: Floats, before: _Steps, after: _Steps) -> dict[str, NDArray[Any]]:
    scaled = weight * before.scales[None, :, None]
    loudest = np.abs(scaled).max((1, 2))
    row = np.where(loudest > 0, loudest, 1).astype(np.float32) / WEIGHT_LEVELS
    q = np.round(scaled / row[:, None, None])
    # In units of a row's sums: what the zeros of the input's channels add has to go, the output's own zero to come.
    moved = bias / row - np.einsum("oik,i->o", q, before.shift) + after.shift * after.scales / row
    return {
        "q": q.astype(np.int8),
        "scales": row / after.scales,
        "zeros": np.zeros(len(row), np.int8),
        "bias": np.round(moved).clip(-(2**31), 2**31 - 1).astype(np.int32),
        "before": before.scales,
        "before.zeros": before.zeros,
        "after": after.scales,
        "after.zeros": after.zeros,
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
        helper.make_node("QuantizeLinear", [source, f"{stem}.before", f"{stem}.before.zeros"], [f"{stem}.in"], axis=1),
        product,
        helper.make_node("DequantizeLinear", [f"{stem}.out", f"{stem}.after", f"{stem}.after.zeros"], [result], axis=1),
    ]
