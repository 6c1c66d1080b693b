"""The code predictor's steps for a GPU: one after another, over the same weights.

A `Loop` or an `If` has its condition copied to the host. A GPU's kernels take weights as they are stored, so that an
unrolled frame holds each weight once all the same. The host learns nothing while the frame runs: shapes follow from the
number of rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.graphs.code_predictor import CodePredictorStep, CodePredictorStepOnnxConfig, draw_ranked
from export.graphs.first_code import FirstCode
from export.graphs.frame import CODE_0_EMBEDDING, Steps, take_constants
from export.graphs.graph import Axes
from export.graphs.layers import empty_caches
from export.graphs.operators import TopK, as_type

ELEMENT_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
}


def draw_of_all(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, uniform: Tensor, ranks: Tensor
) -> Tensor:
    """Draw as `export.graphs.code_predictor.draw` does, among all codes.

    The number of candidates that `draw` learns from `top_k` would have to be copied to the host. `ranks` is int64
    `[1, codes]`, counting from 1.
    """
    values, indices = TopK.apply(logits / temperature[:, None], torch.tensor([ranks.shape[1]]))
    return draw_ranked(values, indices, ranks, top_k, top_p, uniform)


class DeviceFirstCode(FirstCode):
    """Draws code 0 among all codes, see `draw_of_all`."""

    ranks: Tensor

    def __init__(self, vocab_size: int, end: int, groups: int, hidden_size: int) -> None:
        super().__init__(vocab_size, end, groups, hidden_size)
        self.register_buffer("ranks", torch.arange(1, self.codes + 2)[None], persistent=False)

    def draw(self, logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
        """As `FirstCode.draw`."""
        return draw_of_all(logits, temperature, top_k, top_p, uniform, self.ranks)


class DeviceStep(CodePredictorStep):
    """One step as `CodePredictorStep`, with its head `[hidden, codes]` and lengths int32 `[rows]` among its inputs."""

    heads: Tensor
    embeddings: Tensor
    cos: Tensor

    def prepare(self) -> Self:
        super().prepare().register_buffer("ranks", torch.arange(1, self.codes + 1)[None], persistent=False)
        return self

    def forward(  # type: ignore[override]
        self,
        inputs_embeds: Tensor,
        step: Tensor,
        head: Tensor,
        lengths: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        uniform: Tensor,
        forced: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, ...]:
        projection = self.small_to_mtp_projection
        if isinstance(projection, nn.Linear):
            inputs_embeds = as_type(inputs_embeds, projection.weight.dtype)
        total = (step + 2).int().reshape(1)
        x, present = self.model(projection(inputs_embeds), past, lengths, total, self.cos, self.sin)
        hidden = self.model.norm(x[:, -1])
        logits = as_type(hidden, head.dtype) @ head
        code = torch.where(forced < 0, draw_of_all(logits, temperature, top_k, top_p, uniform, self.ranks), forced)
        embedding = nn.functional.embedding(code + step * self.codes, self.embeddings)
        return code, embedding, logits, *present


class DeviceStepOnnxConfig(CodePredictorStepOnnxConfig):
    """Declaration of its graph, which becomes a part of the frame's."""

    module: DeviceStep

    @property
    def inputs(self) -> Axes:
        inputs = super().inputs
        return {name: inputs.pop(name) for name in ("inputs_embeds", "step")} | {
            "head": {},
            "lengths": {0: "rows"},
            **inputs,
        }

    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        module, inputs = self.module, super().sample_inputs()
        inputs["inputs_embeds"] = inputs["inputs_embeds"].to(module.embeddings.dtype)
        inputs["head"], inputs["lengths"] = module.heads[0], torch.tensor([2, 2], dtype=torch.int32)
        inputs["past"] = empty_caches(module.sizes, 2, 2, module.cos.dtype)
        return inputs


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
        "axis_1": np.array([1], np.int64),
        "no_row": np.array(0, np.int32),
        "no_code": np.array(0, np.int64),
        **{f"step.{i}": np.array(i, np.int64) for i in range(steps)},
        **{f"length.{i}": np.array(i + 2, np.int32) for i in range(steps)},
    }
    tensors = [
        stored(CODE_0_EMBEDDING, torch.from_numpy(code_0_embedding).to(step.embeddings.dtype)),
        *(stored(f"head.{i}", head) for i, head in enumerate(step.heads)),
        stored(
            "one_cache", torch.zeros(1, sizes.num_kv_heads, step.groups, sizes.cache_head_dim, dtype=step.cos.dtype)
        ),
        *(numpy_helper.from_array(value, name) for name, value in constants.items()),
        *weights,
    ]
    uniforms, forced = ([f"{name}.column.{i}" for i in range(steps)] for name in ("uniform", "forced"))
    node = helper.make_node
    nodes = [
        node("Cast", ["finite_hidden"], ["hidden.narrow"], to=element_type),
        node("Unsqueeze", ["hidden.narrow", "axis_1"], ["first_position"]),
        node("Unsqueeze", ["first_embedding", "axis_1"], ["second_position"]),
        node("Concat", ["first_position", "second_position"], ["inputs_embeds.0"], axis=1),
        node("Cast", ["code_0"], ["code_0.narrow"], to=TensorProto.INT32),
        node("Mul", ["code_0.narrow", "no_row"], ["no_length"]),
        # As many empty caches as rows, without the arithmetic of shapes, which runs on the host.
        node("Mul", ["code_0", "no_code"], ["row_of_zeros"]),
        node("Gather", ["one_cache", "row_of_zeros"], ["empty_cache"], axis=0),
        node("Split", ["later_uniforms"], uniforms, axis=1, num_outputs=steps),
        node("Split", ["later_forced"], forced, axis=1, num_outputs=steps),
        *(each for each in exported.node if each.op_type == "Constant"),
        *(each for i in range(steps) for each in _step(exported, i)),
        node("Concat", ["second_position", *(f"inputs_embeds.{i + 1}" for i in range(steps))], ["all"], axis=1),
        node("Cast", ["all"], ["all.wide"], to=TensorProto.FLOAT),
        node("ReduceSum", ["all.wide", "axis_1"], ["embedding"], keepdims=0),
        node("Concat", [f"code.column.{i}" for i in range(steps)], ["later_codes"], axis=1),
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
    names = {name: f"{name}.{index}" for node in computed for name in node.output if name}
    names |= {name: f"{name}.{index}" for name in ("step", "head", "lengths", "uniform", "forced", "inputs_embeds")}
    for value in step.input:
        if value.name.startswith("past."):
            names[value.name] = f"{value.name.replace('past.', 'next.', 1)}.{index - 1}" if index else "empty_cache"
    yield helper.make_node("Squeeze", [f"uniform.column.{index}", "axis_1"], [f"uniform.{index}"])
    yield helper.make_node("Squeeze", [f"forced.column.{index}", "axis_1"], [f"forced.{index}"])
    yield helper.make_node("Add", ["no_length", f"length.{index}"], [f"lengths.{index}"])
    for node in computed:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{node.name}.{index}"
        copy.input[:] = [names.get(name, name) for name in node.input]
        copy.output[:] = [names.get(name, name) for name in node.output]
        yield copy
    yield helper.make_node("Unsqueeze", [f"embedding.{index}", "axis_1"], [f"inputs_embeds.{index + 1}"])
    yield helper.make_node("Unsqueeze", [f"code.{index}", "axis_1"], [f"code.column.{index}"])
    yield helper.make_node("Unsqueeze", [f"logits.{index}", "axis_1"], [f"logits.column.{index}"])
