"""The floor of decoding: how long this machine takes merely to read the weights that a frame needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

WEIGHT_NODES = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "MatMulNBits"})
_SIZE = {
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.UINT8: 1,
    TensorProto.INT8: 1,
}


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
    """Count the weights of a graph's matrix and convolution nodes, those inside a loop once a pass.

    Args:
        path: of the `.onnx` file; its weights are not loaded.
        passes: steps of the graph's loop.
    """
    graph = onnx.load(path, load_external_data=False).graph
    sizes = {t.name: prod(t.dims) * _SIZE.get(t.data_type, 0) for t in graph.initializer if len(t.dims) > 1}
    bodies = [a.g for node in graph.node for a in node.attribute if a.name == "body"]
    looped = {name: size for name, size in sizes.items() if name in _weights(n for body in bodies for n in body.node)}
    once = sum(sizes.get(name, 0) for name in _weights(graph.node))
    # A table with one matrix a step, of which each step picks its own, is read once a run in all.
    picked = {n.input[0] for body in bodies for n in body.node if n.op_type == "Gather" and n.input[0] in sizes}
    once += sum(sizes[name] for name in picked if len(_dims(graph, name)) == 3)
    return Reads(once, sum(looped.values()), passes)


def _weights(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    return {name for node in nodes if node.op_type in WEIGHT_NODES for name in node.input[1:]}


def _dims(graph: onnx.GraphProto, name: str) -> list[int]:
    return next(list(t.dims) for t in graph.initializer if t.name == name)


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
