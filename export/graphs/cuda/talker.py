"""The talker for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from export.graphs.graph import Axes
from export.graphs.operators import as_type
from export.graphs.talker import Talker, TalkerOnnxConfig


class DeviceTalker(Talker):
    """The talker, told where each row's last new position is: what follows from a shape is computed on the host, and
    a device would have to wait for it.

    `last`, int64 `[rows]`, counts from the first new position; prompts of unlike lengths are padded on the right.
    """

    def forward(  # type: ignore[override]
        self, inputs_embeds: Tensor, lengths: Tensor, total_length: Tensor, last: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        x, delta, present = self.model(inputs_embeds, past, lengths - 1, total_length, self.cos, self.sin)
        normed, _ = self.model.norm.add(x, delta)  # of all positions: sum and norm are one kernel
        end = normed.gather(1, last[:, None, None].expand(-1, 1, self.sizes.hidden_size))
        hidden = as_type(end[:, 0], torch.float32)
        return self.codec_head(hidden), hidden, *present


class DeviceTalkerOnnxConfig(TalkerOnnxConfig):
    """Declaration of its graph."""

    module: DeviceTalker

    @property
    def inputs(self) -> Axes:
        inputs = super().inputs
        return {name: inputs.pop(name) for name in ("inputs_embeds", "lengths", "total_length")} | {
            "last": {0: "rows"},
            **inputs,
        }

    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        inputs = super().sample_inputs()
        past = inputs.pop("past")
        rows, new, _ = inputs["inputs_embeds"].shape  # type: ignore[union-attr]
        return inputs | {"last": torch.full((rows,), new - 1), "past": past}
