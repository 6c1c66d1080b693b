"""Which kernel multiplies fastest: `python -m benchmarks.kernels [--rows 1 4 8 16]`.

The matrices of the 0.6B's five code predictor layers (79 M weights, random), as each kernel that ONNX Runtime's CPU
execution provider has for quantised weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from server.bench.report import machine

LAYER = ((1024, 2048), (1024, 1024), (1024, 1024), (2048, 1024), (1024, 3072), (1024, 3072), (3072, 1024))
"""Inner and outer sizes of q, k, v, o, gate, up, down."""
LAYERS = 5
RUNS, WARM = 15, 3

Nodes = tuple[list[onnx.NodeProto], list[TensorProto]]


def float_product(source: str, output: str, inner: int, outputs: int, random: np.random.Generator) -> Nodes:
    """A plain float32 product."""
    weight = random.random((inner, outputs), dtype=np.float32)
    return [helper.make_node("MatMul", [source, f"{output}.w"], [output])], [
        numpy_helper.from_array(weight, f"{output}.w")
    ]


def nbits(bits: int, block: int) -> Callable[..., Nodes]:
    """`MatMulNBits` with 8-bit activations."""

    def product(source: str, output: str, inner: int, outputs: int, random: np.random.Generator) -> Nodes:
        blocks = inner // block
        packed = random.integers(0, 256, (outputs, blocks, block * bits // 8), dtype=np.uint8)
        scales = random.random((outputs, blocks), dtype=np.float32) * 1e-3
        node = helper.make_node(
            "MatMulNBits",
            [source, f"{output}.w", f"{output}.s"],
            [output],
            domain="com.microsoft",
            K=inner,
            N=outputs,
            bits=bits,
            block_size=block,
            accuracy_level=4,
        )
        tensors = [numpy_helper.from_array(packed, f"{output}.w"), numpy_helper.from_array(scales, f"{output}.s")]
        return [node], tensors

    return product


def dynamic(source: str, output: str, inner: int, outputs: int, random: np.random.Generator) -> Nodes:
    """`DynamicQuantizeMatMul`: one activation scale a call, one weight scale a column."""
    weight = random.integers(-127, 127, (inner, outputs), dtype=np.int8)
    scales = random.random(outputs, dtype=np.float32) * 1e-3
    names = [source, f"{output}.w", f"{output}.s"]
    node = helper.make_node("DynamicQuantizeMatMul", names, [output], domain="com.microsoft")
    return [node], [numpy_helper.from_array(weight, names[1]), numpy_helper.from_array(scales, names[2])]


CASES: dict[str, Callable[..., Nodes]] = {
    "MatMul fp32": float_product,
    **{
        f"MatMulNBits {bits} bits, block {block}": nbits(bits, block) for bits in (8, 4) for block in (32, 64, 128, 256)
    },
    "DynamicQuantizeMatMul, scale a column": dynamic,
}


def session_of(product: Callable[..., Nodes], threads: int) -> onnxruntime.InferenceSession:
    """All the layers' products side by side, each reduced to one number so that writing results costs little."""
    random, nodes, tensors, parts = np.random.default_rng(0), [], [], []
    for layer in range(LAYERS):
        for index, (inner, outputs) in enumerate(LAYER):
            output = f"y.{layer}.{index}"
            more_nodes, more_tensors = product(f"x.{inner}", output, inner, outputs, random)
            nodes += [*more_nodes, helper.make_node("ReduceMax", [output], [f"{output}.max"], keepdims=0)]
            tensors += more_tensors
            parts.append(f"{output}.max")
    nodes.append(helper.make_node("Sum", parts, ["total"]))
    sizes = sorted({inner for inner, _ in LAYER})
    inputs = [helper.make_tensor_value_info(f"x.{size}", TensorProto.FLOAT, ["rows", size]) for size in sizes]
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "kernels", inputs, [total], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def milliseconds(sessions: dict[str, onnxruntime.InferenceSession], rows: int) -> dict[str, float]:
    """Median of one pass over all layers, by case; the cases take turns, since the machine's speed drifts."""
    random = np.random.default_rng(1)
    feed = {f"x.{size}": random.random((rows, size), dtype=np.float32) for size, _ in LAYER}
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(RUNS):
        for name, session in sessions.items():
            for _ in range(WARM):
                start = time.perf_counter()
                session.run(None, feed)
                last = time.perf_counter() - start
            seconds[name].append(last)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    sessions = {name: session_of(product, options.threads) for name, product in CASES.items()}
    columns = [milliseconds(sessions, rows) for rows in options.rows]
    print(f"{LAYERS} code predictor layers, ms a pass, {options.threads} threads; {machine()}\n")
    print("| kernel | rows: " + " | ".join(map(str, options.rows)) + f" |\n|---|{'---|' * len(options.rows)}")
    for name in CASES:
        print(f"| {name} | {' | '.join(f'{column[name]:.1f}' for column in columns)} |")


if __name__ == "__main__":
    main()
