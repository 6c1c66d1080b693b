"""Causal layers that carry their own past, so that a stream may be cut anywhere without changing a sample.

Every layer that looks back takes its past from a `Stream` and leaves there what the next call needs. All strides of the
codec decoder's convolutions are 1, so a causal convolution over `[past, new]` is exact: no padding depends on a length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


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

    def states(self, name: str) -> list[StateSpec]:
        """`(kernel - 1) * dilation` past inputs; a kernel of 1 carries nothing."""
        return [StateSpec(name, (self.conv.in_channels, self.context))] if self.context else []

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.conv(stream.extend(x, 2, self.context) if self.context else x)


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
