"""ONNX operators that PyTorch has no single call for: what the graph holds, and the same in PyTorch for tracing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

NORM = "SimplifiedLayerNormalization"


def as_type(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in this type; nothing is traced where it has it."""
    return x if x.dtype == dtype else x.to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """NeoX rotary embedding of `x` `[..., head_dim]` by tables that broadcast to `[..., head_dim / 2]`."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class GroupQueryAttention(torch.autograd.Function):
    """`com.microsoft.GroupQueryAttention`, and the same in PyTorch for tracing and validation.

    Shapes: query `[rows, new, heads * head_dim]`, key and value `[rows, new, kv_heads * head_dim]`, caches
    `[rows, kv_heads, capacity, head_dim]`, `last` int32 `[rows]` (index of each row's last valid position),
    `total` int32 scalar (the longest row's length), tables `[positions, head_dim / 2]`. Returns
    `[rows, new, heads * head_dim]` and both caches with the new positions written.

    A first prompt (`new == total`) may have rows of different lengths, padded on the right; otherwise every row
    has `new` new positions behind its past.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        past_key: Tensor,
        past_value: Tensor,
        last: Tensor,
        total: Tensor,
        cos: Tensor,
        sin: Tensor,
        num_heads: int,
        num_kv_heads: int,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, new, _ = query.shape
        head_dim = past_key.shape[-1]
        past = torch.zeros_like(last) if int(total) == new else last + 1 - new
        positions = past[:, None].long() + torch.arange(new)[None]
        cos, sin = cos[positions][:, :, None], sin[positions][:, :, None]
        q = rotate(query.view(rows, new, num_heads, head_dim), cos, sin).transpose(1, 2)
        k = rotate(key.view(rows, new, num_kv_heads, head_dim), cos, sin).transpose(1, 2)
        v = value.view(rows, new, num_kv_heads, head_dim).transpose(1, 2)
        slots = positions[:, None, :, None].expand_as(k)
        present_key, present_value = past_key.scatter(2, slots, k), past_value.scatter(2, slots, v)
        group = num_heads // num_kv_heads
        visible = torch.arange(past_key.shape[2])[None, None] <= positions[:, :, None]
        output = torch.nn.functional.scaled_dot_product_attention(
            q,
            present_key.repeat_interleave(group, dim=1),
            present_value.repeat_interleave(group, dim=1),
            attn_mask=visible[:, None],
            scale=scale,
        )
        return output.transpose(1, 2).reshape(rows, new, -1), present_key, present_value

    @staticmethod
    def symbolic(
        g: Any,
        query: Any,
        key: Any,
        value: Any,
        past_key: Any,
        past_value: Any,
        last: Any,
        total: Any,
        cos: Any,
        sin: Any,
        num_heads: int,
        num_kv_heads: int,
        scale: float,
    ) -> Any:
        output, present_key, present_value = g.op(
            "com.microsoft::GroupQueryAttention",
            query,
            key,
            value,
            past_key,
            past_value,
            last,
            total,
            cos,
            sin,
            num_heads_i=num_heads,
            kv_num_heads_i=num_kv_heads,
            do_rotary_i=1,
            rotary_interleaved_i=0,
            scale_f=scale,
            outputs=3,
        )
        # The traced sizes are those of the sample inputs; left in place, the exporter would take them for constants.
        head_dim = past_key.type().varyingSizes()[3]
        output.setType(past_key.type().with_sizes([None, None, num_heads * head_dim]))
        for present in (present_key, present_value):
            present.setType(past_key.type().with_sizes([None, num_kv_heads, None, head_dim]))
        return output, present_key, present_value


class Norm(torch.autograd.Function):
    """`SimplifiedLayerNormalization`: the root-mean-square norm of `x` `[..., size]`, weight `[size]`.

    ONNX Runtime has it in ONNX's own domain, whose checker does not know it: it is exported in the contrib domain, and
    `export.graphs.cuda.narrow` puts it where it belongs.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = as_type(x, torch.float32)
        return as_type(weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)), x.dtype)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, eps: float) -> Any:
        normed = g.op(f"com.microsoft::{NORM}", x, weight, axis_i=-1, epsilon_f=eps)
        normed.setType(x.type())
        return normed


class AddNorm(torch.autograd.Function):
    """`com.microsoft.SkipSimplifiedLayerNormalization`: the root-mean-square norm of a sum, and the sum.

    Shapes: x, delta and both results `[..., size]`, weight `[size]`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        total = x + delta
        wide = as_type(total, torch.float32)
        return as_type(weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)), x.dtype), total

    @staticmethod
    def symbolic(g: Any, x: Any, delta: Any, weight: Any, eps: float) -> Any:
        name = "com.microsoft::SkipSimplifiedLayerNormalization"
        normed, _, _, total = g.op(name, x, delta, weight, epsilon_f=eps, outputs=4)
        return normed, total


class SplitHeads(torch.autograd.Function):
    """`[rows, steps, heads * size]` -> `[rows, steps, heads, size]`; `view` by traced sizes takes a dozen nodes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, -1))

    @staticmethod
    def symbolic(g: Any, x: Any, heads: int) -> Any:
        return g.op("Reshape", x, g.op("Constant", value_t=torch.tensor([0, 0, heads, -1])))


class MergeHeads(torch.autograd.Function):
    """`[rows, steps, heads, size]` -> `[rows, steps, heads * size]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.flatten(-2)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("Reshape", x, g.op("Constant", value_t=torch.tensor([0, 0, -1])))


class Regroup(torch.autograd.Function):
    """`[rows, ...]` -> `[rows, *sizes]`, in the same order; `[rows, values]` with this many zeros behind the values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: tuple[int, ...], zeros: int) -> Tensor:
        return torch.nn.functional.pad(x, (0, zeros)).reshape(-1, *sizes)

    @staticmethod
    def symbolic(g: Any, x: Any, sizes: tuple[int, ...], zeros: int) -> Any:
        padded = g.op("Pad", x, g.op("Constant", value_t=torch.tensor([0, 0, 0, zeros]))) if zeros else x
        grouped = g.op("Reshape", padded, g.op("Constant", value_t=torch.tensor([0, -1, *sizes[1:]])))
        grouped.setType(x.type().with_sizes([None, *sizes]))
        return grouped


class TopK(torch.autograd.Function):
    """The `k` largest of the last axis in falling order, equal ones by index; `k` is a tensor, int64 `[1]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = x.sort(dim=-1, descending=True, stable=True)
        return values[..., : int(k)], indices[..., : int(k)]

    @staticmethod
    def symbolic(g: Any, x: Any, k: Any) -> Any:
        values, indices = g.op("TopK", x, k, axis_i=-1, largest_i=1, sorted_i=1, outputs=2)
        values.setType(x.type().with_sizes([None, None]))
        indices.setType(x.type().with_sizes([None, None]).with_dtype(torch.int64))
        return values, indices


class CountUp(torch.autograd.Function):
    """The numbers from 1 to `count`, int64 `[count]`; `count` is a tensor, int64 `[1]`."""

    @staticmethod
    def forward(ctx: Any, count: Tensor) -> Tensor:
        return torch.arange(1, int(count) + 1)

    @staticmethod
    def symbolic(g: Any, count: Any) -> Any:
        ones = g.op("ConstantOfShape", count, value_t=torch.tensor([1]))
        numbers = g.op("CumSum", ones, g.op("Constant", value_t=torch.tensor(0)))
        numbers.setType(count.type().with_sizes([None]))
        return numbers


class SumBefore(torch.autograd.Function):
    """Sums of what lies before each value of a row `[rows, values]`, added up in float32 and in order.

    Any of them is the one before it plus the value there, exactly. PyTorch's own `cumsum` adds in float64.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        sums = torch.from_numpy(np.cumsum(x.detach().numpy(), 1))
        return torch.nn.functional.pad(sums[:, :-1], (1, 0))

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        axis = g.op("Constant", value_t=torch.tensor(1))
        sums = g.op("CumSum", x, axis, exclusive_i=1)
        sums.setType(x.type())
        return sums
