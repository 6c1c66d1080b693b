"""Weight-only quantisation: the matrices of an exported graph become `MatMulNBits` nodes.

Weights are cut along the inner axis into blocks with one scale each, symmetric around zero. Where it is known what a
matrix is multiplied by, its errors are fed back (`export.gptq`). Norms, embeddings, codebooks and rotary tables stay as
they are. Activations stay float32 outside the kernel, which quantises them to 8 bits by row and block
(`accuracy_level` 4: several times faster than dequantising the weights). In a graph for CUDA they stay bf16, and so are
the scales; its heads stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from export.gptq import round_with_feedback
from export.graphs.cuda.narrow import NARROW_TYPES
from export.graphs.files import CONTRIB_DOMAIN, with_subgraphs
from export.side_by_side import side_by_side
from server.manifest import CLONING_GRAPHS

ACCURACY_LEVEL = 4
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Clipping points tried for each block, as parts of its largest weight."""
REFITS = 2
SMALLEST_BLOCK = 16


@dataclass(frozen=True)
class WeightFormat:
    """How matrices are stored: 4 or 8 `bits`, one scale for `block_size` weights (a power of 2 from 16 to 256)."""

    bits: int
    block_size: int

    def fitting(self, inner: int) -> WeightFormat:
        """The same with the largest block that divides `inner`, so that no block is padded if that can be."""
        size = self.block_size
        while size > SMALLEST_BLOCK and inner % size:
            size //= 2
        return replace(self, block_size=size)


INT8, INT8_FINE, INT4, INT4_FAST, INT4_FASTEST = (
    WeightFormat(*one) for one in ((8, 128), (8, 32), (4, 32), (4, 64), (4, 128))
)


@dataclass(frozen=True)
class GraphFormats:
    """How the matrices of talker or code predictor are stored: those of the MLPs, and all others but the heads."""

    mlp: WeightFormat
    others: WeightFormat

    @classmethod
    def alike(cls, weight_format: WeightFormat) -> GraphFormats:
        """One format for all."""
        return cls(weight_format, weight_format)

    @property
    def precision(self) -> str:
        """What a manifest calls it."""
        return f"int{self.mlp.bits}" if self.mlp.bits == self.others.bits else "mixed"

    def of(self, node: str) -> WeightFormat:
        """The format of the matrix that a node, which is not a head, multiplies by."""
        return self.mlp if _MLP in node else self.others

    def by_prefix(self, layers: int) -> dict[str, WeightFormat]:
        """The formats of a stack's MLPs, where they are others, by what the names of their nodes begin with."""
        return {} if self.mlp == self.others else {f"/model/layers.{layer}{_MLP}": self.mlp for layer in range(layers)}


_MLP = "/mlp/"
PRECISIONS: dict[str, dict[str, GraphFormats]] = {
    "fp32": {},
    "int8": dict.fromkeys(("talker", "code_predictor"), GraphFormats.alike(INT8)),
    "mixed": dict.fromkeys(("talker", "code_predictor"), GraphFormats(INT4_FASTEST, INT8)),
    "int4": dict.fromkeys(("talker", "code_predictor"), GraphFormats.alike(INT4_FASTEST)),
    "w8a8": dict.fromkeys(("talker", "code_predictor"), GraphFormats.alike(INT8)),
    "int4_bf16": {"talker": GraphFormats.alike(INT4), "code_predictor": GraphFormats.alike(INT4_FAST)},
}
"""Formats by precision and graph; a graph that is not named stays as it was exported. Products of `w8a8` are made by
`export.byte_rows`, and what stands here is what a manifest calls its graphs."""
HEADS = INT8
"""The format of the matrices that give logits, in every graph with `MatMulNBits`: their errors go straight into the
codes."""


def graph_precision(precision: str, graph: str) -> str:
    """What a bundle of some precision stores one of its graphs in: fp32, int8, mixed, int4, or, for a GPU, its own
    name."""
    if precision in NARROW_TYPES:
        return "fp32" if graph in ("codec_decoder", *CLONING_GRAPHS) else precision
    formats = PRECISIONS[precision].get(graph)
    return formats.precision if formats else "fp32"


def fit_blocks(blocks: Tensor, bits: int, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Quantise blocks of weights with scales fitted by least squares.

    Args:
        blocks: float32 `[..., block_size]`.
        bits: 4 or 8.
        importance: how much the squared error of each place in a block counts, `[block_size]`; None is all alike.

    Returns:
        Integers in `[-2**(bits-1), 2**(bits-1) - 1]` as float32 in the shape of `blocks`, and scales `[...]`.
    """
    divisors, scales = fit_scales(blocks, bits, importance)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return (blocks / _nonzero(divisors)[..., None]).round_().clamp_(low, high), scales


def fit_scales(blocks: Tensor, bits: int, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The scales of `fit_blocks`, without the integers.

    For each clipping point the scale and the integers are refitted in turn (the best scale for given integers is
    `w.q / q.q`), and the point with the smallest squared error wins.

    Args:
        blocks, bits, importance: as for `fit_blocks`.

    Returns:
        What blocks are divided by, and then rounded, to get their integers, and the scales of these, both `[...]`.
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    counts = torch.ones(blocks.shape[-1]) if importance is None else importance
    # The integer range has one more step below zero than above: the block's largest weight takes that side.
    extreme = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    best_error = torch.full_like(extreme, float("inf"))
    best_divisor, best_scale = torch.ones_like(extreme), torch.ones_like(extreme)
    q, counted, product = (torch.empty_like(blocks) for _ in range(3))
    for shrink in SHRINKS if bits < 8 else SHRINKS[:1]:
        scale = extreme * shrink / low
        for _ in range(REFITS):
            divisor = scale
            torch.div(blocks, _nonzero(divisor), out=q).round_().clamp_(low, high)
            torch.mul(q, counts, out=counted)
            power = torch.mul(counted, q, out=product).sum(-1, keepdim=True)
            along = torch.mul(blocks, counted, out=product).sum(-1, keepdim=True)
            scale = torch.where(power > 0, along / _nonzero(power), scale)
        error = torch.sub(blocks, q.mul_(scale), out=product).square_().mul_(counts).sum(-1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_divisor = torch.where(better, divisor, best_divisor)
        best_scale = torch.where(better, scale, best_scale)
    return best_divisor[..., 0], best_scale[..., 0]


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, torch.ones_like(x), x)


def quantise_matrix(
    weight: np.ndarray, weight_format: WeightFormat, inputs: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Quantise one matrix to the layout of `MatMulNBits`.

    Args:
        weight: float32 `[inner, outputs]`, as `MatMul` takes it.
        weight_format: bits and block size.
        inputs: what it is multiplied by, float32 `[positions, inner]`, so that errors are fed back; None leaves that.

    Returns:
        Packed uint8 `[outputs, blocks, block_size * bits / 8]` and scales float32 `[outputs, blocks]`.
    """
    inner, outputs = weight.shape
    columns = torch.from_numpy(np.ascontiguousarray(weight.T))
    bits, size = weight_format.bits, weight_format.block_size
    padding = (0, -inner % size)
    columns = torch.nn.functional.pad(columns, padding)
    if inputs is None:
        q, scales = fit_blocks(columns.view(outputs, -1, size), bits)
    else:

        def scales_of(block: Tensor, importance: Tensor) -> Tensor:
            return fit_scales(block, bits, importance)[1]

        padded = torch.nn.functional.pad(inputs, padding)
        q, scales = round_with_feedback(columns, padded, size, bits, scales_of)
    stored = (q + 2 ** (bits - 1)).to(torch.uint8)
    if bits == 4:
        stored = stored[..., 0::2] | (stored[..., 1::2] << 4)
    return stored.numpy(), scales.numpy()


def quantise_graph(
    model: onnx.ModelProto,
    weight_format: WeightFormat | None,
    stored_as: int = TensorProto.FLOAT,
    formats_by_prefix: Mapping[str, WeightFormat] | None = None,
    inputs: Mapping[str, Tensor] | None = None,
) -> None:
    """Replace, in place, every `MatMul` by a stored matrix of a type, in the graph and its subgraphs.

    Args:
        model: with its weights.
        weight_format: bits and block size of all but the heads; None leaves them as they are.
        stored_as: `TensorProto.FLOAT` or `BFLOAT16`; scales take the same type.
        formats_by_prefix: formats of other nodes, by what their names begin with.
        inputs: what nodes are fed, float32 `[positions, inner]`, by the whole name of the node: their errors are fed
            back.

    Raises:
        ValueError: no matrix has a name that begins with one of `formats_by_prefix` or is one of `inputs`, so that it
            would be lost.
    """
    formats_by_prefix, inputs = formats_by_prefix or {}, inputs or {}
    unused = {*formats_by_prefix, *inputs}
    for graph in with_subgraphs(model.graph):
        matrices = {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.data_type == stored_as}
        formats: dict[str, WeightFormat] = {}
        fed: dict[str, Tensor] = {}
        for node in graph.node:
            if node.op_type == "MatMul" and node.input[1] in matrices:
                start = next((start for start in formats_by_prefix if node.name.startswith(start)), "")
                unused -= {start, node.name}
                wanted = HEADS if node.output[0].startswith("logits") else formats_by_prefix.get(start, weight_format)
                if wanted is None:
                    continue
                formats[node.input[1]] = wanted.fitting(matrices[node.input[1]].dims[0])
                if node.name in inputs:
                    fed[node.input[1]] = inputs[node.name]
                node.CopyFrom(_quantised_product(node, matrices[node.input[1]].dims, formats[node.input[1]], stored_as))
        chosen = [(one, formats[one.name], fed.get(one.name)) for one in graph.initializer if one.name in formats]
        stored = dict(zip((one.name for one, _, _ in chosen), side_by_side(_stored, chosen), strict=True))
        kept = [part for one in graph.initializer for part in stored.get(one.name, [one])]
        del graph.initializer[:]
        graph.initializer.extend(kept)
    if unused:
        raise ValueError(
            f"no matrix of the graph has a name that begins with {' or '.join(sorted(unused))}: the installed torch or "
            "optimum-onnx names nodes otherwise; `make export-tools` installs the versions that are known to fit"
        )
    if CONTRIB_DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(CONTRIB_DOMAIN, 1))


def _stored(matrix: tuple[TensorProto, WeightFormat, Tensor | None]) -> list[TensorProto]:
    """Integers and scales of a tensor, which loses its values, in a format; it is multiplied by these inputs."""
    tensor, weight_format, inputs = matrix
    values = numpy_helper.to_array(tensor)
    packed, scales = quantise_matrix(values.astype(np.float32), weight_format, inputs)
    tensor.ClearField("raw_data")
    return [
        numpy_helper.from_array(packed, f"{tensor.name}.q"),
        numpy_helper.from_array(scales.astype(values.dtype), f"{tensor.name}.scales"),
    ]


def _quantised_product(
    node: onnx.NodeProto, dims: Sequence[int], weight_format: WeightFormat, stored_as: int
) -> onnx.NodeProto:
    (source, matrix), (inner, outputs) = node.input, dims
    return helper.make_node(
        "MatMulNBits",
        [source, f"{matrix}.q", f"{matrix}.scales"],
        list(node.output),
        name=node.name,
        domain=CONTRIB_DOMAIN,
        K=inner,
        N=outputs,
        bits=weight_format.bits,
        block_size=weight_format.block_size,
        accuracy_level=ACCURACY_LEVEL if stored_as == TensorProto.FLOAT else 0,
    )
