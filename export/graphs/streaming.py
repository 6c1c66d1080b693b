"""Causal layers that carry their own past, so that a stream may be cut anywhere without changing a sample.

Every layer that looks back takes its past from a `Stream` and leaves there what the next call needs. All strides of the
codec decoder's convolutions are 1, so a causal convolution over `[past, new]` is exact: no padding depends on a length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WIDE = 384
"""Outputs from which ONNX Runtime's convolution over two axes, for which it lays channels out in blocks, is faster on a
CPU than that over one axis: by 12 % for 768 and 5 % for 384, while it is slower for 192 (docs/notes/tried.md)."""


@dataclass(frozen=True)
class StateSpec:
    """One carried tensor: float32 `[rows, *shape]`, all zeros before the first frame."""

    name: str
    shape: tuple[int, ...]


class Stream:
    """The carried tensors of one call, taken and left in the order of the layers."""

    def __init__(self, past: Sequence[Tensor]) -> None:
        self._past = iter(past)
        self.next: list[Tensor] = []

    def take(self) -> Tensor:
        """What the previous call left at this place."""
        return next(self._past)

    def leave(self, tensor: Tensor) -> None:
        """Leave a tensor for the next call."""
        self.next.append(tensor)

    def extend(self, new: Tensor, axis: int, context: int) -> Tensor:
        """Put the carried context of `context` steps before `new`, and carry as much of the end."""
        whole = torch.cat((self.take(), new), dim=axis)
        self.leave(whole[(slice(None),) * axis + (slice(-context, None),)])
        return whole


class CausalConv(nn.Module):
    """1-D convolution over the past and the present: `[rows, channels, steps]` in and out."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, groups=groups)
        self.context = (kernel - 1) * dilation
        self.over_two_axes = groups == 1 and outputs >= WIDE
        """Whether to be traced as a convolution over two axes, of which the first has a single step."""

    def states(self, name: str) -> list[StateSpec]:
        """`(kernel - 1) * dilation` past inputs; a kernel of 1 carries nothing."""
        return [StateSpec(name, (self.conv.in_channels, self.context))] if self.context else []

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        whole = stream.extend(x, 2, self.context) if self.context else x
        if not self.over_two_axes:
            return self.conv(whole)
        weight, bias, dilation = self.conv.weight[:, :, None], self.conv.bias, (1, *self.conv.dilation)
        return nn.functional.conv2d(whole[:, :, None], weight, bias, dilation=dilation).squeeze(2)


class CausalConvTranspose(nn.Module):
    """Transposed 1-D convolution that keeps the first `steps * stride` samples and carries what hangs over.

    The overhang is carried without the bias, since the next call adds it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(inputs, outputs, kernel, stride=stride)

    def states(self, name: str) -> list[StateSpec]:
        """`kernel - stride` overhanging outputs."""
        (kernel,), (stride,) = self.conv.kernel_size, self.conv.stride
        return [StateSpec(name, (self.conv.out_channels, kernel - stride))] if kernel > stride else []

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        (kernel,), (stride,) = self.conv.kernel_size, self.conv.stride
        if kernel == stride:
            return self.conv(x)
        whole = nn.functional.conv_transpose1d(x, self.conv.weight, stride=self.conv.stride)
        overhang = kernel - stride
        whole = torch.cat((whole[..., :overhang] + stream.take(), whole[..., overhang:]), dim=2)
        stream.leave(whole[..., -overhang:])
        bias: Tensor = self.conv.bias
        return whole[..., :-overhang] + bias[:, None]
