"""The code predictor's steps for a GPU: one after another, over the same weights.

A `Loop` or an `If` has its condition copied to the host. A GPU's kernels take weights as they are stored, so that an
unrolled frame holds each weight once all the same. The host learns nothing while the frame runs: shapes follow from the
number of rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.graphs.code_predictor import CodePredictorStep, CodePredictorStepOnnxConfig
from export.graphs.first_code import FirstCode
from export.graphs.frame import CODE_0_EMBEDDING, Steps, take_constants
from export.graphs.graph import Axes
from export.graphs.layers import cache_axes, empty_caches
from export.graphs.operators import Regroup, SumBefore, TopK, as_type

ELEMENT_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
}
SHARED = ("temperature", "last_rank", "top_p")
"""Inputs of a step that all steps share."""
COLUMNS = ("uniform", "is_drawn", "forced")
"""Inputs of a step of which the frame has a column for each."""
SUMMED_AT_ONCE = 64
"""Values of a block in `running_sums`: for each sum ONNX Runtime's CUDA kernel has one thread that adds from the first
value on, so that the time grows with the longest sum."""


def running_sums(x: Tensor, size: int) -> Tensor:
    """Sums of each value of `x` `[rows, size]` and those before it, within blocks and then across them.

    They are rounded otherwise than sums of one value after the other, but never fall either, since a block begins from
    the last sum of the one before. Zeros fill up the last block, so that there may be more sums than values.
    """
    blocks = -(-size // SUMMED_AT_ONCE)
    padded = blocks * SUMMED_AT_ONCE
    inside = Regroup.apply(x, (blocks, SUMMED_AT_ONCE), padded - size).cumsum(2)
    before = SumBefore.apply(inside[:, :, -1])
    return Regroup.apply(inside + before[:, :, None], (padded,), 0)


def draw_of_all(
    logits: Tensor, codes: int, temperature: Tensor, last_rank: Tensor, top_p: Tensor, uniform: Tensor
) -> Tensor:
    """Draw as `export.graphs.code_predictor.draw` does, among all codes, in few nodes, each of which is a GPU's kernel.

    The number of candidates that `draw` learns from `top_k` would have to be copied to the host. The sums of the
    probabilities are rounded otherwise than the host's, so that another code may come of a uniform, or another number
    of codes be kept for a `top_p`, that lies within that rounding (about 1e-6) of a border between two codes.

    Shapes: `logits` `[rows, codes]`, all others `[rows, 1]`, as is the result, int64; `last_rank` int64 is `top_k` - 1.
    """
    values, indices = TopK.apply(logits / temperature, torch.tensor([codes]))
    sums = running_sums(values.softmax(1), codes)
    kept = top_p * sums.gather(1, last_rank)
    # The first sum to reach that is the last kept candidate's. A uniform is below 1 and its product with that sum
    # below the sum, so that the drawn candidate, the first whose sum is above the product, is a kept one.
    drawn = uniform * torch.where(sums < kept, 2.0, sums).amin(1, keepdim=True)  # no sum is as large as 2
    place = (sums <= drawn).float().sum(1, keepdim=True).long()  # float32 counts exactly, and faster than int64
    return indices.gather(1, place)


class DeviceFirstCode(FirstCode):
    """Draws code 0 among all codes, see `draw_of_all`."""

    def draw(self, logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
        """As `FirstCode.draw`."""
        columns = (each[:, None] for each in (temperature, top_k - 1, top_p, uniform))
        return draw_of_all(logits, self.codes + 1, *columns)[:, 0]


class DeviceStep(CodePredictorStep):
    """One step as `CodePredictorStep`, with what it alone has, and what all steps share, among its inputs.

    Shapes: `head` `[hidden, codes]`, `table` (embeddings of its codebook) `[codes, talker hidden]`, `last` int32
    `[rows]` and `total` int32 `[1]` as `export.graphs.operators.GroupQueryAttention` takes them; `temperature`,
    `last_rank`, `top_p` and `uniform` `[rows, 1]` as `draw_of_all` takes them; `is_drawn` bool and `forced` int64
    `[rows, 1]`, the code that is taken where none is drawn. Returns `code` `[rows, 1]`, `embedding`
    `[rows, 1, talker hidden]`, and logits and caches as `CodePredictorStep` does.
    """

    heads: Tensor
    embeddings: Tensor
    cos: Tensor

    def forward(  # type: ignore[override]
        self,
        inputs_embeds: Tensor,
        head: Tensor,
        table: Tensor,
        last: Tensor,
        total: Tensor,
        temperature: Tensor,
        last_rank: Tensor,
        top_p: Tensor,
        uniform: Tensor,
        is_drawn: Tensor,
        forced: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, ...]:
        projection = self.small_to_mtp_projection
        if isinstance(projection, nn.Linear):
            inputs_embeds = as_type(inputs_embeds, projection.weight.dtype)
        x, delta, present = self.model(projection(inputs_embeds), past, last, total, self.cos, self.sin)
        hidden, _ = self.model.norm.add(x, delta)  # sum and norm are one kernel
        logits = as_type(hidden[:, -1], head.dtype) @ head
        drawn = draw_of_all(logits, self.codes, temperature, last_rank, top_p, uniform)
        code = torch.where(is_drawn, drawn, forced)
        return code, nn.functional.embedding(code, table), logits, *present


class DeviceStepOnnxConfig(CodePredictorStepOnnxConfig):
    """Declaration of its graph, which becomes a part of the frame's."""

    module: DeviceStep

    @property
    def inputs(self) -> Axes:
        return {
            "inputs_embeds": {0: "rows", 1: "new"},
            **{name: {} for name in ("head", "table")},
            "last": {0: "rows"},
            "total": {},
            **{name: {0: "rows"} for name in (*SHARED, *COLUMNS)},
            **cache_axes("past", self.module.sizes.num_layers),
        }

    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        module, rows = self.module, 2
        return {
            "inputs_embeds": torch.randn(rows, 2, module.talker_hidden_size).to(module.embeddings.dtype),
            "head": module.heads[0],
            "table": module.embeddings[: module.codes],
            "last": torch.ones(rows, dtype=torch.int32),
            "total": torch.tensor([2], dtype=torch.int32),
            "temperature": torch.full((rows, 1), 0.9),
            "last_rank": torch.tensor([[4], [7]]),
            "top_p": torch.tensor([[0.9], [1.0]]),
            "uniform": torch.tensor([[0.3], [0.7]]),
            "is_drawn": torch.tensor([[True], [False]]),
            "forced": torch.tensor([[-1], [3]]),
            "past": empty_caches(module.sizes, rows, 2, module.cos.dtype),
        }


def frame_unrolled(step_path: Path, step: DeviceStep, code_0_embedding: np.ndarray) -> Steps:
    """The steps of a frame one after the other.

    Args:
        step_path: the exported step.
        step: its module, for the sizes and types.
        code_0_embedding: the talker's codec embedding, float32 `[vocab_size, talker hidden]`.
    """
    exported = onnx.load(step_path).graph
    weights = [*exported.initializer, *take_constants(exported).values()]
    sizes, steps, element_type = step.sizes, step.groups - 1, ELEMENT_TYPES[step.embeddings.dtype]
    constants = {
        "axis_0": np.array([0], np.int64),
        "axis_1": np.array([1], np.int64),
        "no_code": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "last_of_steps": np.arange(1, steps + 1, dtype=np.int32)[:, None],
        **{f"total.{i}": np.array([i + 2], np.int32) for i in range(steps)},
    }
    tensors = [
        stored(CODE_0_EMBEDDING, torch.from_numpy(code_0_embedding).to(step.embeddings.dtype)),
        *(stored(f"head.{i}", head) for i, head in enumerate(step.heads)),
        *(stored(f"table.{i}", table) for i, table in enumerate(step.embeddings.split(step.codes))),
        stored(
            "one_cache", torch.zeros(1, sizes.num_kv_heads, step.groups, sizes.cache_head_dim, dtype=step.cos.dtype)
        ),
        *(numpy_helper.from_array(value, name) for name, value in constants.items()),
        *weights,
    ]
    names = {name: [f"{name}.{i}" for i in range(steps)] for name in COLUMNS}
    node = helper.make_node
    nodes = [
        node("Cast", ["finite_hidden"], ["hidden.narrow"], to=element_type),
        node("Unsqueeze", ["hidden.narrow", "axis_1"], ["first_position"]),
        node("Unsqueeze", ["first_embedding", "axis_1"], ["second_position"]),
        node("Concat", ["first_position", "second_position"], ["inputs_embeds.0"], axis=1),
        # As many empty caches as rows, without the arithmetic of shapes, which runs on the host; and positions.
        node("Mul", ["code_0", "no_code"], ["row_of_zeros"]),
        node("Gather", ["one_cache", "row_of_zeros"], ["empty_cache"], axis=0),
        node("Cast", ["row_of_zeros"], ["no_positions"], to=TensorProto.INT32),
        node("Add", ["last_of_steps", "no_positions"], ["last"]),
        node("Split", ["last"], [f"last.row.{i}" for i in range(steps)], axis=0, num_outputs=steps),
        # Once for all steps: each node is a kernel to launch.
        node("Sub", ["top_k", "one"], ["last_ranks"]),
        *(
            node("Unsqueeze", [rows, "axis_1"], [f"{name}.column"])
            for rows, name in zip(("temperature", "last_ranks", "top_p"), SHARED, strict=True)
        ),
        node("Less", ["later_forced", "no_code"], ["are_drawn"]),
        node("Split", ["later_uniforms"], names["uniform"], axis=1, num_outputs=steps),
        node("Split", ["are_drawn"], names["is_drawn"], axis=1, num_outputs=steps),
        node("Split", ["later_forced"], names["forced"], axis=1, num_outputs=steps),
        *(each for each in exported.node if each.op_type == "Constant"),
        *(each for i in range(steps) for each in _step(exported, i)),
        node("Concat", ["second_position", *(f"embedding.{i}" for i in range(steps))], ["all"], axis=1),
        node("Cast", ["all"], ["all.wide"], to=TensorProto.FLOAT),
        node("ReduceSum", ["all.wide", "axis_1"], ["embedding"], keepdims=0),
        node("Concat", [f"code.{i}" for i in range(steps)], ["later_codes"], axis=1),
        node("Concat", [f"logits.column.{i}" for i in range(steps)], ["logits"], axis=1),
    ]
    return Steps(nodes, tensors)


def stored(name: str, tensor: Tensor) -> TensorProto:
    """A tensor as an initializer; bf16 goes by its bits."""
    bits = tensor.detach().contiguous()
    bits = bits.view(torch.int16) if bits.element_size() == 2 else bits
    return helper.make_tensor(name, ELEMENT_TYPES[tensor.dtype], tensor.shape, bits.numpy().tobytes(), raw=True)


def _step(step: onnx.GraphProto, index: int) -> Iterator[onnx.NodeProto]:
    """The step's nodes, its own values renamed, its inputs taken from the step before and from the frame."""
    computed = [node for node in step.node if node.op_type != "Constant"]
    (last_position,) = [
        node for node in computed if node.op_type == "Gather" and [axis.i for axis in node.attribute] == [1]
    ]
    names = {name: f"{name}.{index}" for node in computed for name in node.output if name}
    names |= {name: f"{name}.column" for name in SHARED}
    names |= {name: f"{name}.{index}" for name in (*COLUMNS, "head", "table", "last", "total", "inputs_embeds")}
    if index:
        names["inputs_embeds"] = f"embedding.{index - 1}"
    for value in step.input:
        if value.name.startswith("past."):
            names[value.name] = f"{value.name.replace('past.', 'next.', 1)}.{index - 1}" if index else "empty_cache"
    yield helper.make_node("Squeeze", [f"last.row.{index}", "axis_0"], [f"last.{index}"])
    for node in computed:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{node.name}.{index}"
        copy.input[:] = [names.get(name, name) for name in node.input]
        copy.output[:] = [names.get(name, name) for name in node.output]
        if index and node is last_position:  # the only one there is
            copy = helper.make_node("Squeeze", [copy.input[0], "axis_1"], copy.output, copy.name)
        yield copy
    yield helper.make_node("Unsqueeze", [f"logits.{index}", "axis_1"], [f"logits.column.{index}"])
