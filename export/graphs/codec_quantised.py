"""The codec decoder for a CPU that multiplies bytes: channels last, residual units in 8 bits, the rest as products.

`replace_parts` puts these in the place of the decoder's own layers. What a unit's convolutions take and give is
quantised channel by channel, with scales that are fixed when the bundle is made: a sample depends neither on the chunk
that it is decoded in nor on the other rows, but for roundings of the float32 parts. Transposed and plain convolutions
become one matrix product each, over a window of steps; `export.quantise` stores their matrices in 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graphs.byte_operators import (
    BYTE_MIDDLE,
    ByteConv,
    ByteProduct,
    FromBytes,
    LikeShape,
    LookUp,
    MergeSteps,
    SplitSteps,
    ToBytes,
)
from export.graphs.codec_decoder import CodecDecoder, ResidualUnit, SnakeBeta, UpsampleBlock, decode_whole
from export.graphs.streaming import CausalConv, CausalConvTranspose, StateSpec, Stream

HEADROOM = 1.1
"""The range of a tensor is this part of the loudest value that calibration saw; what is louder is clipped."""
LEVELS = 127
"""Steps on either side of an activation's zero."""
WEIGHT_LEVELS = 63
"""7 bits: two products of 8 bits would overflow the 16-bit sums of processors without VNNI."""
_SMALLEST = 1e-6
_LARGEST_BIAS = 2**30
"""In steps of the sums that it is added to, which are int32."""


class Part(NamedTuple):
    """A part of the decoder that is in 8 bits or in float32: the front is block 0. Of an upsampling block, whose number
    is that of its place in `decoder.decoder`, layer 0 is the transposed convolution, and the others are its units."""

    block: int
    layer: int

    def __str__(self) -> str:
        if self == FRONT:
            return "front"
        return f"block {self.block} {f'unit {self.layer}' if self.layer else 'upsampling'}"


FRONT = Part(0, 0)


@dataclass(frozen=True)
class UnitRanges:
    """Largest magnitude of each channel of a residual unit's values, `[channels]` each: what goes in, and what comes
    out of the first snake, the dilated convolution and the second snake."""

    source: Tensor
    first: Tensor
    middle: Tensor
    second: Tensor


def observe(decoder: CodecDecoder, codes: Sequence[NDArray[np.int64]]) -> dict[int, list[UnitRanges]]:
    """The ranges of every upsampling block's residual units over some speech, by the block's number."""
    loudest: dict[Any, tuple[Tensor, Tensor]] = {}

    def hear(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        now = given[0].abs().amax((0, 2)), made.abs().amax((0, 2))
        before = loudest.get(module, now)
        loudest[module] = (torch.maximum(before[0], now[0]), torch.maximum(before[1], now[1]))

    blocks = {number: layer for number, layer in enumerate(decoder.decoder) if isinstance(layer, UpsampleBlock)}
    units = [unit for block in blocks.values() for unit in block.block[2:]]
    handles = [module.register_forward_hook(hear) for unit in units for module in (unit.act1, unit.conv1, unit.act2)]
    for frames in codes:
        decode_whole(decoder, frames)
    for handle in handles:
        handle.remove()
    return {
        number: [
            UnitRanges(*loudest[unit.act1], middle=loudest[unit.conv1][1], second=loudest[unit.act2][1])
            for unit in block.block[2:]
        ]
        for number, block in blocks.items()
    }


def parts_of(decoder: CodecDecoder) -> list[Part]:
    """All parts, in order."""
    blocks = enumerate(decoder.blocks, 1)
    return [FRONT, *(Part(number, layer) for number, block in blocks for layer in range(len(block.block) - 1))]


def replace_parts(
    decoder: CodecDecoder, ranges: Mapping[int, list[UnitRanges]], in_float32: Collection[Part] = ()
) -> None:
    """Put, in place, the layers of this module into a decoder.

    Args:
        decoder: with its weights, in float32.
        ranges: of the residual units of each upsampling block, by the block's number.
        in_float32: parts that stay as they are, as far as the layout of their block allows.
    """
    in_bytes = {part.block for part in parts_of(decoder) if part not in in_float32}
    if FRONT not in in_float32:
        decoder.pre_conv = ConvAsProduct(decoder.pre_conv)
        decoder.upsample = nn.ModuleList(
            nn.ModuleList([UpsampleAsProduct(transposed), convnext]) for transposed, convnext in decoder.upsample
        )
        decoder.decoder[0] = ConvAsProduct(decoder.decoder[0])
    for number, block in enumerate(decoder.blocks, 1):
        if number in in_bytes:
            decoder.decoder[number] = ChannelsLastBlock(number, block, ranges[number], in_float32)


class Product(nn.Module):
    """`x @ matrix`: `[..., inputs]` to `[..., outputs]`."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = _constant(matrix)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


class ConvAsProduct(nn.Module):
    """A causal convolution as one product over windows of its kernel's length; shapes as `CausalConv`."""

    def __init__(self, convolution: CausalConv) -> None:
        super().__init__()
        weight = convolution.conv.weight.detach()
        self.product = Product(weight.permute(2, 1, 0).flatten(0, 1))
        self.bias = convolution.conv.bias
        self.inputs, (self.dilation,) = convolution.conv.in_channels, convolution.conv.dilation
        self.context = convolution.context

    def states(self, name: str) -> list[StateSpec]:
        """The past inputs, channels last."""
        return [StateSpec(name, (self.context, self.inputs))]

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        whole = stream.extend(x.transpose(1, 2), 1, self.context)
        windows = [
            whole[:, start : start - self.context or None] for start in range(0, self.context + 1, self.dilation)
        ]
        return (self.product(torch.cat(windows, 2)) + self.bias).transpose(1, 2)


class UpsampleAsProduct(nn.Module):
    """A transposed convolution as one product; shapes as `CausalConvTranspose`, whose kernel is one or two strides.

    Each step gives `stride` new ones, from itself and, where the kernel has two strides, from the step before.
    """

    def __init__(self, transposed: CausalConvTranspose) -> None:
        super().__init__()
        weight = transposed.conv.weight.detach()
        self.inputs, self.outputs, kernel = weight.shape
        (stride,) = transposed.conv.stride
        if kernel not in (stride, 2 * stride):
            raise ValueError(f"a transposed convolution of kernel {kernel} and stride {stride} is no single product")
        self.context = kernel // stride - 1
        halves = weight.unflatten(2, (-1, stride)).permute(2, 0, 3, 1)
        self.product = Product(halves.reshape(self.inputs * (self.context + 1), stride * self.outputs))
        self.bias = _constant(transposed.conv.bias.detach().repeat(stride))

    def states(self, name: str) -> list[StateSpec]:
        """The last input step, if the kernel looks back."""
        return [StateSpec(name, (self.context, self.inputs))] if self.context else []

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.last(x.transpose(1, 2), stream).transpose(1, 2)

    def last(self, x: Tensor, stream: Stream) -> Tensor:
        """The same, channels last."""
        if self.context:
            whole = stream.extend(x, 1, self.context)
            x = torch.cat((x, whole[:, : -self.context]), 2)
        return SplitSteps.apply(self.product(x) + self.bias, self.outputs)


class FloatUnit(nn.Module):
    """A residual unit in float32 among others whose channels are last."""

    def __init__(self, unit: ResidualUnit) -> None:
        super().__init__()
        self.unit = unit

    def states(self, name: str) -> list[StateSpec]:
        """Past inputs of the dilated convolution."""
        return self.unit.conv1.states(name)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self.unit(x.transpose(1, 2), stream).transpose(1, 2)


class QuantisedUnit(nn.Module):
    """A residual unit whose convolutions compute in 8 bits, channels last: float32 `[rows, steps, channels]`.

    A snake between bytes is a table of 256 values a channel.
    """

    def __init__(self, unit: ResidualUnit, ranges: UnitRanges) -> None:
        super().__init__()
        source, first, middle, second = map(_step_sizes, (ranges.source, ranges.first, ranges.middle, ranges.second))
        self.per_step = _constant(1 / source)
        self.table_1 = _constant(_table(unit.act1, source, first))
        self.table_2 = _constant(_table(unit.act2, middle, second))
        dilated, pointwise = unit.conv1.conv, unit.conv2.conv
        weight, scales = _byte_weights(dilated.weight.detach() * first[:, None], dilated.bias.detach())
        self.dilated = _constant(weight)
        self.dilated_scales = _constant(scales / middle)
        self.dilated_bias = _constant((dilated.bias.detach() / scales).round().int())
        weight, scales = _byte_weights(pointwise.weight.detach() * second[:, None], pointwise.bias.detach())
        self.pointwise = _constant(weight[..., 0].T)
        self.pointwise_scales = _constant(scales)
        self.pointwise_bias = _constant(pointwise.bias.detach())
        self.channels, self.context, (self.dilation,) = dilated.in_channels, unit.conv1.context, dilated.dilation

    def states(self, name: str) -> list[StateSpec]:
        """Past inputs of the dilated convolution, in steps of its scales."""
        return [StateSpec(name, (self.context, self.channels))]

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        new = LikeShape.apply(self._look_up(self.table_1, ToBytes.apply(x * self.per_step)), x)
        whole = torch.cat((ToBytes.apply(stream.take()), new), 1)
        stream.leave(FromBytes.apply(whole[:, -self.context :]))
        mixed = ByteConv.apply(whole, self.dilated, self.dilated_scales, self.dilated_bias, self.dilation)
        second = self._look_up(self.table_2, mixed)
        product = ByteProduct.apply(second, self.pointwise, self.pointwise_scales, self.pointwise_bias)
        return x + LikeShape.apply(product, x)

    def _look_up(self, table: Tensor, values: Tensor) -> Tensor:
        return LookUp.apply(table, MergeSteps.apply(values, self.channels))


class ChannelsLastBlock(nn.Module):
    """An upsampling block with quantised residual units, but for those in float32; shapes as `UpsampleBlock`."""

    def __init__(
        self, number: int, block: UpsampleBlock, ranges: Sequence[UnitRanges], in_float32: Collection[Part]
    ) -> None:
        super().__init__()
        self.snake, transposed, *units = block.block
        self.upsample = UpsampleAsProduct(transposed)
        self.units = nn.ModuleList(
            FloatUnit(unit) if Part(number, layer) in in_float32 else QuantisedUnit(unit, ranges[layer - 1])
            for layer, unit in enumerate(units, 1)
        )

    def states(self, name: str) -> list[StateSpec]:
        """The carried tensors of the transposed convolution, then those of each unit."""
        specs = self.upsample.states(f"{name}.upsample")
        for index, unit in enumerate(self.units):
            specs += unit.states(f"{name}.unit.{index}")
        return specs

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = self.upsample.last(self.snake(x.transpose(1, 2), axis=2), stream)
        for unit in self.units:
            x = unit(x, stream)
        return x.transpose(1, 2)


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.contiguous(), requires_grad=False)


def _step_sizes(loudest: Tensor) -> Tensor:
    return (loudest * HEADROOM).clamp(min=_SMALLEST) / LEVELS


def _byte_weights(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weights `[outputs, inputs, kernel]` as int8, and the scale of each output, in steps of which its bias fits."""
    scales = torch.maximum(weight.abs().amax((1, 2)) / WEIGHT_LEVELS, bias.abs() / _LARGEST_BIAS)
    scales = scales.clamp(min=torch.finfo(scales.dtype).tiny)
    return (weight / scales[:, None, None]).round().to(torch.int8), scales


def _table(snake: SnakeBeta, source: Tensor, result: Tensor) -> Tensor:
    """What a snake makes of every byte, uint8 `[256, channels]`, by the step sizes before and after it."""
    values = (torch.arange(256)[:, None] - BYTE_MIDDLE) * source
    steps = (snake(values, axis=1) / result).round().clamp(-LEVELS, LEVELS)
    return (steps + BYTE_MIDDLE).to(torch.uint8)
