"""The floor of decoding: how long this machine takes merely to read the weights that a frame needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

WEIGHT_NODES = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "MatMulNBits"})


@dataclass(frozen=True)
class Reads:
    """Weight bytes that one run of a graph reads: `once`, and `looped` read again in each of `passes` steps."""

    once: int
    looped: int = 0
    passes: int = 0

    @property
    def total(self) -> int:
        """Bytes a run."""
        return self.once + self.looped * self.passes


def weight_reads(path: Path, passes: int = 0) -> Reads:
    """Count the weights of a graph's matrix and convolution nodes.

    Those in a loop's body are read again in each pass; those in branches inside it, of which each pass takes another,
    once in all.

    Args:
        path: of the `.onnx` file; its weights are not loaded.
        passes: steps of the graph's loop.
    """
    graph = onnx.load(path, load_external_data=False).graph
    bodies = [a.g for node in graph.node for a in node.attribute if a.name == "body"]
    branches = [inner for body in bodies for inner in _inside(body)]
    return Reads(_weights(graph) + sum(map(_weights, branches)), sum(map(_weights, bodies)), passes)


def _inside(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield attribute.g
                yield from _inside(attribute.g)


def _weights(graph: onnx.GraphProto) -> int:
    """Bytes of the initializers that this graph's own nodes multiply by."""
    used = {name for node in graph.node if node.op_type in WEIGHT_NODES for name in node.input[1:]}
    return sum(
        prod(t.dims) * tensor_dtype_to_np_dtype(t.data_type).itemsize for t in graph.initializer if t.name in used
    )


class FloorProbe:
    """Reads as many bytes, in as many passes over working sets of the same size, with as many threads.

    Args:
        reads: of the graphs of one frame.
        threads: that read, each its own part.
    """

    def __init__(self, reads: Iterable[Reads], threads: int) -> None:
        self._passes = [(self._parts(r.once, threads), 1) for r in reads if r.once]
        self._passes += [(self._parts(r.looped, threads), r.passes) for r in reads if r.looped]

    @staticmethod
    def _parts(size: int, threads: int) -> list[np.ndarray]:
        return [np.ones(max(size // 8 // threads, 1), np.int64) for _ in range(threads)]

    @property
    def bytes_read(self) -> int:
        """Bytes of one run."""
        return sum(part.nbytes * passes for parts, passes in self._passes for part in parts)

    def run(self) -> float:
        """Read everything once as a frame would; returns the seconds it took."""
        start = time.perf_counter()
        for parts, passes in self._passes:
            readers = [threading.Thread(target=_read, args=(part, passes)) for part in parts]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
        return time.perf_counter() - start


def _read(part: np.ndarray, passes: int) -> None:
    for _ in range(passes):
        np.bitwise_or.reduce(part)
