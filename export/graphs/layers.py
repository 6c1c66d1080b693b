"""The Qwen3 decoder layer that talker and code predictor share, written so that it traces into few, fast nodes.

Attribute names are the checkpoint's tensor names. Attention is one `GroupQueryAttention` node (ONNX Runtime's contrib
operator): rotary embedding, causal mask and KV cache in one kernel, with a length for each row. `q_norm` and `k_norm`
stay outside it, since only the CUDA kernel takes their weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.graphs.operators import AddNorm, GroupQueryAttention, MergeHeads, Norm, SplitHeads, as_type
from server.graphs.caches import KERNEL_HEAD_DIM_MULTIPLE


@dataclass(frozen=True)
class LayerSizes:
    """Shapes of one decoder stack.

    `attention_bias` adds biases to q, k, v and o; `hidden_act` other than SiLU is refused by the checkpoint reader.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    attention_bias: bool
    max_positions: int

    @property
    def cache_head_dim(self) -> int:
        """`head_dim` rounded up to what the attention kernel takes."""
        return -(-self.head_dim // KERNEL_HEAD_DIM_MULTIPLE) * KERNEL_HEAD_DIM_MULTIPLE

    @classmethod
    def from_config(cls, config: dict[str, Any], max_positions: int) -> LayerSizes:
        """Read a `talker_config` or a `code_predictor_config`."""
        return cls(
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            num_kv_heads=config["num_key_value_heads"],
            head_dim=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
            rms_norm_eps=config["rms_norm_eps"],
            rope_theta=config["rope_theta"],
            attention_bias=config.get("attention_bias", False),
            max_positions=max_positions,
        )


def rotary_tables(sizes: LayerSizes) -> tuple[Tensor, Tensor]:
    """Cosines and sines of plain rotary embedding, float32 `[max_positions, cache_head_dim / 2]`.

    The talker's three M-RoPE rows are always equal, which makes it plain rotary embedding.
    """
    inverse = inverse_frequencies(sizes.head_dim, sizes.rope_theta)
    inverse = nn.functional.pad(inverse, (0, (sizes.cache_head_dim - sizes.head_dim) // 2))
    angles = torch.outer(torch.arange(sizes.max_positions, dtype=torch.float32), inverse)
    return angles.cos(), angles.sin()


def inverse_frequencies(head_dim: int, theta: float) -> Tensor:
    """Rotary inverse frequencies, float32 `[head_dim / 2]`."""
    return 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim))


def pad_halves(x: Tensor, size: int) -> Tensor:
    """Widen the last axis to `size`, half of the zeros behind each half, so that rotary pairs stay pairs."""
    missing = (size - x.shape[-1]) // 2
    return torch.cat([nn.functional.pad(half, (0, missing)) for half in x.chunk(2, dim=-1)], dim=-1)


def project(x: Tensor, *layers: nn.Linear, result: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """Several projections of one input, as one product: the exporter folds the joined matrix into a constant.

    Args:
        x: `[..., inner]`, brought to the type of the weights.
        layers: which project it.
        result: type of the results; None is that of the weights.
    """
    dtype = layers[0].weight.dtype
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    joined = nn.functional.linear(as_type(x, dtype), torch.cat([layer.weight for layer in layers]), bias)
    return as_type(joined, result or dtype).split([layer.out_features for layer in layers], dim=-1)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps
        self.one_node = False
        """Whether to trace into the runtime's own operator, which computes in float32 whatever the type is."""

    def forward(self, x: Tensor) -> Tensor:
        if self.one_node:
            return Norm.apply(x, self.weight, self.eps)
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))

    def add(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """The norm of `x + delta`, and that sum."""
        return AddNorm.apply(x, as_type(delta, x.dtype), self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query self-attention with normalised queries and keys."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        q_size, kv_size = sizes.num_heads * sizes.head_dim, sizes.num_kv_heads * sizes.head_dim
        self.q_proj = nn.Linear(sizes.hidden_size, q_size, bias=sizes.attention_bias)
        self.k_proj = nn.Linear(sizes.hidden_size, kv_size, bias=sizes.attention_bias)
        self.v_proj = nn.Linear(sizes.hidden_size, kv_size, bias=sizes.attention_bias)
        self.o_proj = nn.Linear(q_size, sizes.hidden_size, bias=sizes.attention_bias)
        self.q_norm = RMSNorm(sizes.head_dim, sizes.rms_norm_eps)
        self.k_norm = RMSNorm(sizes.head_dim, sizes.rms_norm_eps)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor], last: Tensor, total: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        sizes = self.sizes
        query, key, value = project(x, self.q_proj, self.k_proj, self.v_proj)
        query = self.q_norm(SplitHeads.apply(query, sizes.num_heads))
        key = self.k_norm(SplitHeads.apply(key, sizes.num_kv_heads))
        if sizes.cache_head_dim != sizes.head_dim:
            query, key = pad_halves(query, sizes.cache_head_dim), pad_halves(key, sizes.cache_head_dim)
            value = SplitHeads.apply(value, sizes.num_kv_heads)
            value = MergeHeads.apply(nn.functional.pad(value, (0, sizes.cache_head_dim - sizes.head_dim)))
        output, present_key, present_value = GroupQueryAttention.apply(
            MergeHeads.apply(query),
            MergeHeads.apply(key),
            value,
            *past,
            last,
            total,
            cos,
            sin,
            sizes.num_heads,
            sizes.num_kv_heads,
            sizes.head_dim**-0.5,
        )
        if sizes.cache_head_dim != sizes.head_dim:
            output = MergeHeads.apply(SplitHeads.apply(output, sizes.num_heads)[..., : sizes.head_dim])
        return self.o_proj(output), present_key, present_value


class MLP(nn.Module):
    """SwiGLU feed-forward block."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = project(x, self.gate_proj, self.up_proj, result=self.down_proj.weight.dtype)
        return self.down_proj(nn.functional.silu(gate) * up)


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with its residual."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.self_attn = Attention(sizes)
        self.mlp = MLP(sizes.hidden_size, sizes.intermediate_size)
        self.input_layernorm = RMSNorm(sizes.hidden_size, sizes.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(sizes.hidden_size, sizes.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        delta: Tensor | None,
        past: tuple[Tensor, Tensor],
        last: Tensor,
        total: Tensor,
        cos: Tensor,
        sin: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Take the residual stream as `x + delta`, and give it so: the next layer's norm adds the two."""
        if delta is None:
            normed = self.input_layernorm(x)
        else:
            normed, x = self.input_layernorm.add(x, delta)
        attended, present_key, present_value = self.self_attn(normed, past, last, total, cos, sin)
        normed, x = self.post_attention_layernorm.add(x, attended)
        return x, self.mlp(normed), present_key, present_value


class DecoderStack(nn.Module):
    """Decoder layers and the final norm; the caches come and go as one flat list `key.0, value.0, key.1, ...`."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.num_layers))
        self.norm = RMSNorm(sizes.hidden_size, sizes.rms_norm_eps)

    def forward(
        self, x: Tensor, past: list[Tensor], last: Tensor, total: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Run the stack.

        Args:
            x: `[rows, new, hidden_size]`.
            past: caches `[rows, kv_heads, capacity, head_dim]`, two a layer.
            last: int32 `[rows]`, index of each row's last new position.
            total: int32 `[1]`, the longest row's length with its new positions.
            cos: rotary table `[positions, head_dim / 2]`; `sin` likewise.

        Returns:
            Two tensors `[rows, new, hidden_size]` that sum up to the hidden states before the final norm, and the
            caches.
        """
        x = as_type(x, self.norm.weight.dtype)
        present: list[Tensor] = []
        delta = None
        for index, layer in enumerate(self.layers):
            x, delta, key, value = layer(x, delta, (past[2 * index], past[2 * index + 1]), last, total, cos, sin)
            present += [key, value]
        return x, as_type(delta, x.dtype), present


def cache_axes(direction: str, num_layers: int) -> dict[str, dict[int, str]]:
    """Names and dynamic axes of a stack's caches, `past.0.key`, `past.0.value`, `past.1.key`, ..."""
    names = [f"{layer}.{part}" for layer in range(num_layers) for part in ("key", "value")]
    return {f"{direction}.{name}": {0: "rows", 2: "capacity"} for name in names}


def empty_caches(sizes: LayerSizes, rows: int, capacity: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Zeroed caches of a stack, `[rows, kv_heads, capacity, head_dim]` each."""
    shape = (rows, sizes.num_kv_heads, capacity, sizes.cache_head_dim)
    return [torch.zeros(shape, dtype=dtype) for _ in range(2 * sizes.num_layers)]
