"""The codec decoder's front: residual codebooks and the windowed transformer over their frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from export.graphs.layers import MLP, RMSNorm, inverse_frequencies
from export.graphs.operators import rotate
from export.graphs.streaming import StateSpec, Stream

CODEBOOK_EPSILON = 1e-5


class Codebook(nn.Module):
    """A codebook as training left it: sums and counts of the vectors of each code."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.cluster_usage = nn.Parameter(torch.empty(size))
        self.embedding_sum = nn.Parameter(torch.empty(size, dim))

    def vectors(self) -> Tensor:
        """Mean vector of each code, `[size, dim]`."""
        return self.embedding_sum / self.cluster_usage.clamp(min=CODEBOOK_EPSILON)[:, None]


class Quantizer(nn.Module):
    """Some residual codebooks and their common output projection."""

    def __init__(self, count: int, size: int, dim: int, output_dim: int) -> None:
        super().__init__()
        self.vq = nn.Module()
        self.vq.layers = nn.ModuleList(nn.Module() for _ in range(count))
        for layer in self.vq.layers:
            layer._codebook = Codebook(size, dim)
        self.output_proj = nn.Conv1d(dim, output_dim, 1, bias=False)
        self.size = size

    def prepare(self) -> None:
        """Stack the codebooks into one table `[count * size, dim]`; to be called once the weights are there."""
        table = torch.cat([layer._codebook.vectors() for layer in self.vq.layers])
        offsets = torch.arange(len(self.vq.layers)) * self.size
        self.register_buffer("table", table.detach(), persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """`[rows, frames, count]` -> `[rows, output_dim, frames]`."""
        vectors = nn.functional.embedding(codes + self.offsets, self.table).sum(2)
        return self.output_proj(vectors.transpose(1, 2))


class WindowAttention(nn.Module):
    """Causal attention over the last `window` positions, rotary by absolute position."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, bias = config["hidden_size"], config.get("attention_bias", False)
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim = config.get("head_dim") or hidden // self.heads
        self.past_size = config["sliding_window"] - 1
        self.q_proj = nn.Linear(hidden, self.heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.head_dim, hidden, bias=bias)

    def states(self, name: str) -> list[StateSpec]:
        """Rotated keys, and values, of the last `window - 1` frames."""
        shape = (self.kv_heads, self.past_size, self.head_dim)
        return [StateSpec(f"{name}.key", shape), StateSpec(f"{name}.value", shape)]

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Tensor, stream: Stream) -> Tensor:
        query = rotate(self.q_proj(x).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2), cos, sin)
        key = rotate(self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2), cos, sin)
        value = self.v_proj(x).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
        key, value = stream.extend(key, 2, self.past_size), stream.extend(value, 2, self.past_size)
        if self.heads != self.kv_heads:
            # `repeat_interleave` would be traced with the number of positions that it is traced at.
            shared = torch.arange(self.heads) // (self.heads // self.kv_heads)
            key, value = key.index_select(1, shared), value.index_select(1, shared)
        scores = query @ key.transpose(2, 3) * self.head_dim**-0.5
        weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
        return self.o_proj((weights @ value).transpose(1, 2).flatten(-2))


class LayerScale(nn.Module):
    """A learnt factor for each channel."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


class TransformerLayer(nn.Module):
    """Pre-norm windowed attention and feed-forward, each scaled by channel."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, eps = config["hidden_size"], config["rms_norm_eps"]
        self.self_attn = WindowAttention(config)
        self.mlp = MLP(hidden, config["intermediate_size"])
        self.input_layernorm = RMSNorm(hidden, eps)
        self.post_attention_layernorm = RMSNorm(hidden, eps)
        self.self_attn_layer_scale = LayerScale(hidden)
        self.mlp_layer_scale = LayerScale(hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Tensor, stream: Stream) -> Tensor:
        x = x + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(x), cos, sin, visible, stream))
        return x + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(x)))


class Transformer(nn.Module):
    """Windowed transformer between the quantizer and the upsampling."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = RMSNorm(config["hidden_size"], config["rms_norm_eps"])
        self.input_proj = nn.Linear(config["latent_dim"], config["hidden_size"])
        self.output_proj = nn.Linear(config["hidden_size"], config["latent_dim"])
        self.window, self.theta = config["sliding_window"], config["rope_theta"]

    def states(self, name: str) -> list[StateSpec]:
        """The carried tensors of all layers in order."""
        return [spec for i, layer in enumerate(self.layers) for spec in layer.self_attn.states(f"{name}.{i}")]

    def forward(self, x: Tensor, position: Tensor, stream: Stream) -> Tensor:
        """`[rows, frames, latent_dim]` in and out; `position` int64 `[rows]` counts the frames already decoded."""
        head_dim = self.layers[0].self_attn.head_dim
        steps = torch.arange(x.size(1))
        inverse = inverse_frequencies(head_dim, self.theta)
        angles = (position[:, None] + steps)[:, None, :, None].float() * inverse
        # Slot j of the keys holds frame position + j - (window - 1); slots before frame 0 hold nothing yet.
        slots = torch.arange(x.size(1) + self.window - 1)
        distance = steps[:, None] + (self.window - 1) - slots
        started = position[:, None] + slots >= self.window - 1
        visible = ((distance >= 0) & (distance < self.window))[None, None] & started[:, None, None]
        x = self.input_proj(x)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin(), visible, stream)
        return self.output_proj(self.norm(x))
