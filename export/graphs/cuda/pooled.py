"""The codec decoder's carried state for a GPU: in one buffer of many states, of which each row names those it means."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from server.graphs.cuda.codec_decoder import NEXT_STATES, PAST_STATES, READ_PLACE, WRITE_PLACE

CHUNK = 16
"""Floats that one thread writes: ONNX Runtime's CUDA kernel of `ScatterND` has each copy the whole slice of an index,
one value after the other."""
MOST_JOINED = 32
"""Inputs of a `Concat` whose addresses the CUDA kernel is given by value; those of more are copied from the host."""
ROWS = "past.rows"


def pool_states(model: onnx.ModelProto) -> None:
    """Rewrite, in place, a graph that carries `past.NAME` to `next.NAME`, both float32 `[rows, ...]`.

    All of them become one buffer `PAST_STATES` and `NEXT_STATES`, float32 `[states, chunks, CHUNK]`, meant to be one
    and the same memory: a row's tensors lie there one behind the other. A row begins from the state whose place
    `READ_PLACE` names, int64 `[rows]`, and leaves the next state at the place that `WRITE_PLACE` names, int64 `[rows]`,
    from which no row of this call may begin.

    Raises:
        ValueError: a carried tensor has a dimension besides the rows that is not fixed.
    """
    graph = model.graph
    shapes = {
        value.name.removeprefix("past."): [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        for value in graph.input
        if value.name.startswith("past.")
    }
    unfixed = [name for name, shape in shapes.items() if not all(shape)]
    if unfixed:
        raise ValueError(f"carried tensors whose shapes are not fixed: {', '.join(unfixed)}")
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    chunks = total // CHUNK + 1  # the last one is never full, as `_Rewrite.reads` wants it
    rewrite = _Rewrite(graph)

    reads = rewrite.reads(sizes, shapes, chunks * CHUNK)
    writes = rewrite.writes(sizes, chunks)
    nodes = [*reads, *graph.node, *writes]
    del graph.node[:]
    graph.node.extend(nodes)
    carried = {f"{way}.{name}" for way in ("past", "next") for name in shapes}
    states = ["states", chunks, CHUNK]
    for values, name in ((graph.input, PAST_STATES), (graph.output, NEXT_STATES)):
        kept = [value for value in values if value.name not in carried]
        del values[:]
        values.extend([*kept, helper.make_tensor_value_info(name, TensorProto.FLOAT, states)])
    places = (READ_PLACE, WRITE_PLACE)
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT64, ["rows"]) for name in places)


class _Rewrite:
    """Makes the nodes around a graph, and puts their constants into it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph

    def reads(self, sizes: dict[str, int], shapes: dict[str, list[int]], width: int) -> list[onnx.NodeProto]:
        """From the buffer to each row's tensors.

        Not by `Split`, whose CUDA kernel copies a table as long as the row from the host for parts of unlike sizes.
        ONNX Runtime makes one of slices that leave nothing out, and so none reads the end of a row.
        """
        nodes = [
            helper.make_node("Gather", [PAST_STATES, READ_PLACE], ["past.chunks"], axis=0),
            self._reshaped("past.chunks", ROWS, [-1, width]),
        ]
        start = 0
        for name, size in sizes.items():
            nodes += self._part(start, start + size, f"past.{name}.flat")
            nodes.append(self._reshaped(f"past.{name}.flat", f"past.{name}", [-1, *shapes[name]]))
            start += size
        return nodes

    def writes(self, sizes: dict[str, int], chunks: int) -> list[onnx.NodeProto]:
        """From each row's next tensors to the buffer."""
        nodes = [self._reshaped(f"next.{name}", f"next.{name}.flat", [-1, size]) for name, size in sizes.items()]
        flat = [f"next.{name}.flat" for name in sizes]
        while len(flat) > 1:
            groups = [flat[first : first + MOST_JOINED] for first in range(0, len(flat), MOST_JOINED)]
            flat = [f"{group[0]}.joined" if len(group) > 1 else group[0] for group in groups]
            pairs = zip(groups, flat, strict=True)
            nodes += [helper.make_node("Concat", group, [name], axis=1) for group, name in pairs if len(group) > 1]
        (rows,) = flat
        pads = self._constant("next.pads", [0, 0, 0, chunks * CHUNK - sum(sizes.values())])
        # [place, 0] of each row and [0, chunk] of each chunk add up to all their indices, on the device.
        numbers = np.stack([np.zeros(chunks, np.int64), np.arange(chunks)], axis=1)
        return [
            *nodes,
            helper.make_node("Pad", [rows, pads], ["next.rows"]),
            self._reshaped("next.rows", "next.chunks", [-1, chunks, CHUNK]),
            self._reshaped(WRITE_PLACE, "write_place.column", [-1, 1, 1]),
            helper.make_node("Mul", ["write_place.column", self._constant("place_unit", [[[1, 0]]])], ["place_index"]),
            helper.make_node("Add", ["place_index", self._constant("chunk_index", numbers[None])], ["write_index"]),
            helper.make_node("ScatterND", [PAST_STATES, "write_index", "next.chunks"], [NEXT_STATES]),
        ]

    def _part(self, start: int, stop: int, name: str) -> list[onnx.NodeProto]:
        bounds = [self._constant(f"{name}.{end}", [value]) for end, value in (("start", start), ("stop", stop))]
        return [helper.make_node("Slice", [ROWS, *bounds, self._axis()], [name])]

    def _axis(self) -> str:
        return self._constant("states_axis", [1])

    def _reshaped(self, name: str, new: str, shape: list[int]) -> onnx.NodeProto:
        return helper.make_node("Reshape", [name, self._constant(f"{new}.shape", shape)], [new])

    def _constant(self, name: str, value: list[int] | list[list[list[int]]] | NDArray[np.int64]) -> str:
        if all(tensor.name != name for tensor in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
        return name
