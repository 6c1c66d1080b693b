"""Which kernel is fastest: `python -m benchmarks.kernels [--rows 1 4 8 16]`.

The matrices of the 0.6B's five code predictor layers (79 M weights, random), as each kernel that ONNX Runtime's CPU
execution provider has for quantised weights, and whether a row comes out the same whatever rows are beside it. With
`--attention` the attention of one of the talker's layers instead, over KV caches in float32 and in 8 bits, and how far
the results are off. That, and the matrices with `--threads 1`, is processor time, which other processes change less
than the clock's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from server.bench.report import machine
from server.graphs.bound_call import BoundCall

LAYER = ((1024, 4096), (2048, 1024), (1024, 6144), (3072, 1024))
"""Inner and outer sizes of q, k and v together, o, gate and up together, down."""
LAYERS = 5
RUNS, WARM = 15, 3

HEADS, KV_HEADS, HEAD_DIM = 16, 8, 128
"""Of the talker's attention."""
CACHES = {"float32": "", "8 bits, one scale": "PER_TENSOR", "8 bits, a scale a channel": "PER_CHANNEL"}
"""What `GroupQueryAttention` calls the quantisation of a cache."""
STEP = 0.03
"""Scale of the caches in 8 bits: 127 steps reach 3.8 times the spread of what is in them."""
CALLS = 60

Array = NDArray[Any]
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


def bytes_by_row(kind: type[np.uint8] | type[np.int8]) -> Callable[..., Nodes]:
    """A product of bytes with one scale for each row and one for each column.

    Every row is divided by its largest value, so that one scale and zero point, which are constants, fit all rows. The
    sums are of integers, and what is done to them is done to each value by itself.
    """

    def product(source: str, output: str, inner: int, outputs: int, random: np.random.Generator) -> Nodes:
        names = {part: f"{output}.{part}" for part in ("absolute", "largest", "unit", "bytes", "sums")}
        stored: dict[str, Array] = {
            f"{output}.w": random.integers(-127, 127, (inner, outputs), dtype=np.int8),
            f"{output}.step": np.array(1 / 127, np.float32),
            f"{output}.zero": np.array(128 if kind is np.uint8 else 0, kind),
            f"{output}.s": random.random(outputs, dtype=np.float32) * 1e-3,
        }
        weight, step, zero, scales = stored
        nodes = [
            helper.make_node("Abs", [source], [names["absolute"]]),
            helper.make_node("ReduceMax", [names["absolute"]], [names["largest"]], axes=[-1], keepdims=1),
            helper.make_node("Div", [source, names["largest"]], [names["unit"]]),
            helper.make_node("QuantizeLinear", [names["unit"], step, zero], [names["bytes"]]),
            helper.make_node(
                "MatMulIntegerToFloat",
                [names["bytes"], weight, step, scales, zero],
                [names["sums"]],
                domain="com.microsoft",
            ),
            helper.make_node("Mul", [names["sums"], names["largest"]], [output]),
        ]
        return nodes, [numpy_helper.from_array(values, name) for name, values in stored.items()]

    return product


CASES: dict[str, Callable[..., Nodes]] = {
    "MatMul fp32": float_product,
    **{
        f"MatMulNBits {bits} bits, block {block}": nbits(bits, block) for bits in (8, 4) for block in (32, 64, 128, 256)
    },
    "DynamicQuantizeMatMul, scale a column": dynamic,
    "MatMulIntegerToFloat, scale a row and a column": bytes_by_row(np.uint8),
    "MatMulIntegerToFloat, the same with signed rows": bytes_by_row(np.int8),
}
TOGETHER = 8
"""Rows among which a row is looked at."""


def session_of(product: Callable[..., Nodes], threads: int) -> onnxruntime.InferenceSession:
    """All the layers' products side by side, each of an input of its own, so that none is quantised once for several,
    and each reduced to one number, so that writing results costs little."""
    random, nodes, tensors, parts = np.random.default_rng(0), [], [], []
    for name, (inner, outputs) in _products():
        more_nodes, more_tensors = product(f"x.{name}", f"y.{name}", inner, outputs, random)
        nodes += [*more_nodes, helper.make_node("ReduceMax", [f"y.{name}"], [f"{name}.max"], keepdims=0)]
        tensors += more_tensors
        parts.append(f"{name}.max")
    nodes.append(helper.make_node("Sum", parts, ["total"]))
    inputs = [
        helper.make_tensor_value_info(f"x.{name}", TensorProto.FLOAT, ["rows", inner])
        for name, (inner, _) in _products()
    ]
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "kernels", inputs, [total], tensors)
    return session_on(graph, threads)


def _products() -> Iterator[tuple[str, tuple[int, int]]]:
    """A name for each product of all layers, and its sizes."""
    for layer in range(LAYERS):
        for index, sizes in enumerate(LAYER):
            yield f"{layer}.{index}", sizes


def same_rows(product: Callable[..., Nodes], threads: int) -> list[int]:
    """Numbers of rows, below `TOGETHER`, that come out bit by bit as they do when so many are together."""
    random = np.random.default_rng(2)
    same = {1, 2, 4}
    for inner, outputs in LAYER:
        nodes, tensors = product("x", "y", inner, outputs, random)
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
            for name, size in (("x", inner), ("y", outputs))
        ]
        session = session_on(helper.make_graph(nodes, "rows", values[:1], values[1:], tensors), threads)
        x = random.standard_normal((TOGETHER, inner), np.float32)
        (whole,) = session.run(None, {"x": x})
        for count in sorted(same):
            parts = [session.run(None, {"x": x[at : at + count]})[0] for at in range(0, TOGETHER, count)]
            if not np.array_equal(np.concatenate(parts), whole):
                same.remove(count)
    return sorted(same)


def session_on(graph: onnx.GraphProto, threads: int) -> onnxruntime.InferenceSession:
    """Open a graph on the CPU."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def milliseconds(
    sessions: dict[str, onnxruntime.InferenceSession], rows: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median of one pass over all layers, by case; the cases take turns, since the machine's speed drifts."""
    random = np.random.default_rng(1)
    feed = {f"x.{name}": random.standard_normal((rows, inner), np.float32) for name, (inner, _) in _products()}
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(RUNS):
        for name, session in sessions.items():
            for _ in range(WARM):
                start = clock()
                session.run(None, feed)
                last = clock() - start
            seconds[name].append(last)
    return {name: 1e3 * statistics.median(values) for name, values in seconds.items()}


class AttentionCall:
    """One position of some rows through a layer's attention, over caches that stay in place.

    Args:
        quantised: a value of `CACHES`.
        rows: how many.
        positions: of each row, the new one among them.
    """

    def __init__(self, quantised: str, rows: int, positions: int) -> None:
        random, cache = np.random.default_rng(0), (rows, KV_HEADS, positions, HEAD_DIM)

        def draw(shape: tuple[int, ...]) -> Array:
            return random.standard_normal(shape, np.float32)

        inputs = {
            name: draw((rows, 1, heads * HEAD_DIM)) for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS))
        }
        caches: dict[str, Array] = {name: draw(cache) for name in ("keys", "values")}
        angles = random.random((positions, HEAD_DIM // 2), np.float32)
        tensors = {"cos": np.cos(angles), "sin": np.sin(angles)}
        names = [*inputs, *caches, "last", "total", *tensors]
        options: dict[str, Any] = {}
        if quantised:
            caches = {name: (values / STEP).round().clip(-127, 127).astype(np.int8) for name, values in caches.items()}
            shape = (1, KV_HEADS, 1, HEAD_DIM) if quantised == "PER_CHANNEL" else (1,)
            tensors |= {name: np.full(shape, STEP, np.float32) for name in ("key_scale", "value_scale")}
            names += ["", "", "", "key_scale", "value_scale"]
            options = {"k_quant_type": quantised, "v_quant_type": quantised, "kv_cache_bit_width": 8}
        inputs |= caches | {"last": np.full(rows, positions - 1, np.int32), "total": np.array([positions], np.int32)}
        self.output = np.zeros((rows, 1, HEADS * HEAD_DIM), np.float32)
        outputs: dict[str, Array] = {
            "attended": self.output,
            "next_keys": caches["keys"],
            "next_values": caches["values"],
        }
        node = helper.make_node(
            "GroupQueryAttention",
            names,
            list(outputs),
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            do_rotary=1,
            **options,
        )
        declared, given = (
            [
                helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                for n, v in some.items()
            ]
            for some in (inputs, outputs)
        )
        stored = [numpy_helper.from_array(values, name) for name, values in tensors.items()]
        graph = helper.make_graph([node], "attention", declared, given, stored)
        self._call = BoundCall(session_on(graph, 1), *(_values(some) for some in (inputs, outputs)))

    def seconds(self) -> float:
        """Processor time of a call behind another one."""
        self._call.run()
        start = time.process_time()
        self._call.run()
        return time.process_time() - start


def _values(arrays: Mapping[str, Array]) -> dict[str, onnxruntime.OrtValue]:
    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}


def attention(rows: int, positions: int) -> str:
    """The lines of a Markdown table; the caches take turns."""
    calls = {name: AttentionCall(quantised, rows, positions) for name, quantised in CACHES.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(CALLS):
        for name, call in calls.items():
            found[name].append(call.seconds())
    plain = calls["float32"].output
    lines = []
    for name, call in calls.items():
        ratio = statistics.median(one / to for one, to in zip(found[name], found["float32"], strict=True))
        error = np.abs(call.output - plain).max() / np.abs(plain).max()
        microseconds = 1e6 * statistics.median(found[name])
        lines.append(f"| {name} | {rows} | {microseconds:.0f} | {ratio:.2f} | {error:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", metavar="TEXT", help="only kernels that have this in their names")
    parser.add_argument("--attention", action="store_true", help="measure attention over its caches instead")
    parser.add_argument("--positions", type=int, default=400, help="that attention looks back over (%(default)s)")
    options = parser.parse_args()
    if options.attention:
        print(f"One talker layer's attention, {options.positions} positions, one thread; {machine()}\n")
        print("| KV cache | rows | processor time, us | times float32's | largest error, of the largest value |")
        print("|---|---|---|---|---|")
        for rows in options.rows:
            print(attention(rows, options.positions))
        return
    cases = {name: product for name, product in CASES.items() if options.only in name}
    sessions = {name: session_of(product, options.threads) for name, product in cases.items()}
    clock, of = (time.process_time, "processor ") if options.threads == 1 else (time.perf_counter, "")
    columns = [milliseconds(sessions, rows, clock) for rows in options.rows]
    print(f"{LAYERS} code predictor layers, {of}ms a pass, {options.threads} threads; {machine()}\n")
    same = {name: same_rows(product, options.threads) for name, product in cases.items()}
    print(f"| kernel | {' | '.join(f'{rows} rows' for rows in options.rows)} | equal to {TOGETHER} rows' |")
    print(f"|---|{'---|' * len(options.rows)}---|")
    for name in cases:
        equal = ", ".join(map(str, same[name])) or "none"
        print(f"| {name} | {' | '.join(f'{column[name]:.1f}' for column in columns)} | {equal} |")


if __name__ == "__main__":
    main()
