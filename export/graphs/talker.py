"""The talker: predicts codebook 0 of a codec frame from everything before it."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from export.checkpoint import Checkpoint
from export.graphs.graph import Axes, GraphConfig
from export.graphs.layers import DecoderStack, LayerSizes, cache_axes, empty_caches, rotary_tables
from export.graphs.operators import as_type

MAX_POSITIONS = 8192
"""Longest prompt plus frames: over ten minutes of audio in one row; the checkpoints allow 32768."""


class Talker(nn.Module):
    """Decoder stack, rotary tables and `codec_head`.

    Shapes: `inputs_embeds` float32 `[rows, new, hidden_size]`, `lengths` int32 `[rows]`, `total_length` int32 `[1]`,
    caches as `DecoderStack` says; returns `logits` `[rows, vocab_size]`, `hidden` `[rows, hidden_size]`, caches.
    """

    PREFIX = "talker."
    """How the names of its tensors begin in the checkpoint."""

    def __init__(self, sizes: LayerSizes, vocab_size: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.config = PretrainedConfig()
        self.model = DecoderStack(sizes)
        self.codec_head = nn.Linear(sizes.hidden_size, vocab_size, bias=False)

    @classmethod
    def on_meta(cls, checkpoint: Checkpoint) -> Self:
        """Build the module without weights."""
        config = checkpoint.config["talker_config"]
        sizes = LayerSizes.from_config(config, min(config["max_position_embeddings"], MAX_POSITIONS))
        with torch.device("meta"):
            return cls(sizes, config["vocab_size"])

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Self:
        """Build the module with the checkpoint's weights, in float32."""
        talker = cls.on_meta(checkpoint)
        checkpoint.load_into(talker, cls.PREFIX)
        cos, sin = rotary_tables(talker.sizes)
        talker.register_buffer("cos", cos, persistent=False)
        talker.register_buffer("sin", sin, persistent=False)
        return talker.eval()

    def forward(
        self, inputs_embeds: Tensor, lengths: Tensor, total_length: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        x, delta, present = self.model(inputs_embeds, past, lengths - 1, total_length, self.cos, self.sin)
        hidden = as_type(self._normed(x, delta, lengths), torch.float32)
        return self.codec_head(hidden), hidden, *present

    def _normed(self, x: Tensor, delta: Tensor, lengths: Tensor) -> Tensor:
        """The final norm of `x + delta` at each row's last new position; a first prompt may be padded on the right."""
        x = x + delta
        end = lengths.long().clamp(max=x.size(1)) - 1
        last = x.gather(1, end[:, None, None].expand(-1, 1, self.sizes.hidden_size))
        normed: Tensor = self.model.norm(last[:, 0])
        return normed


class TalkerOnnxConfig(GraphConfig):
    """Declaration of the talker graph."""

    module: Talker

    @property
    def inputs(self) -> Axes:
        return {
            "inputs_embeds": {0: "rows", 1: "new"},
            "lengths": {0: "rows"},
            "total_length": {},
            **cache_axes("past", self.module.sizes.num_layers),
        }

    @property
    def outputs(self) -> Axes:
        return {
            "logits": {0: "rows"},
            "hidden": {0: "rows"},
            **cache_axes("next", self.module.sizes.num_layers),
        }

    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        sizes, rows, new = self.module.sizes, 2, 3
        return {
            "inputs_embeds": torch.randn(rows, new, sizes.hidden_size),
            # Full caches: the runtime leaves the unused end of a cache that is not bound in place undefined.
            "lengths": torch.full((rows,), new, dtype=torch.int32),
            "total_length": torch.tensor([new], dtype=torch.int32),
            "past": empty_caches(sizes, rows, new, self.module.cos.dtype),
        }
