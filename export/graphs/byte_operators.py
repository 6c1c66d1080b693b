"""ONNX Runtime's operators on bytes, and the same in PyTorch for tracing and validation.

A value in bytes is uint8, counted from `BYTE_MIDDLE` in steps whose sizes are folded into tables, weights and scales:
every quantised tensor has the scale 1, since by-channel `QuantizeLinear` and `DequantizeLinear` are scalar in ONNX
Runtime where channels come last, and take several times what a convolution does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.onnx import TensorProtoDataType

BYTE_MIDDLE = 128


class ToBytes(torch.autograd.Function):
    """Steps as float32 to bytes, rounded to even, clipped."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor) -> Tensor:
        return (steps.round() + BYTE_MIDDLE).clamp(0, 255).to(torch.uint8)

    @staticmethod
    def symbolic(g: Any, steps: Any) -> Any:
        quantised = g.op("QuantizeLinear", steps, *_unit_scale(g))
        quantised.setType(steps.type().with_dtype(torch.uint8))
        return quantised


class FromBytes(torch.autograd.Function):
    """Bytes to steps as float32."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.float() - BYTE_MIDDLE

    @staticmethod
    def symbolic(g: Any, values: Any) -> Any:
        steps = g.op("DequantizeLinear", values, *_unit_scale(g))
        steps.setType(values.type().with_dtype(torch.float32))
        return steps


class LookUp(torch.autograd.Function):
    """Bytes `[count, channels]` to those that a table uint8 `[256, channels]` has in their place."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, values: Tensor) -> Tensor:
        return table.gather(0, values.long())

    @staticmethod
    def symbolic(g: Any, table: Any, values: Any) -> Any:
        found = g.op("GatherElements", table, g.op("Cast", values, to_i=TensorProtoDataType.INT32), axis_i=0)
        found.setType(values.type())
        return found


class ByteConv(torch.autograd.Function):
    """`QLinearConv` with channels last: bytes `[rows, context + steps, inputs]` to bytes `[rows, steps, outputs]`.

    Weight int8 `[outputs, inputs, kernel]`, float32 scales `[outputs]` from sums to steps, bias int32 `[outputs]`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor, dilation: int) -> Tensor:
        # Float64 holds the integer sums exactly.
        steps = (x.double() - BYTE_MIDDLE).transpose(1, 2)
        sums = torch.nn.functional.conv1d(steps, weight.double(), bias.double(), dilation=dilation)
        return ToBytes.forward(ctx, (sums * scales[:, None]).transpose(1, 2))

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, scales: Any, bias: Any, dilation: int) -> Any:
        outputs = weight.type().sizes()[0]
        zeros = g.op("Constant", value_t=torch.zeros(outputs, dtype=torch.int8))
        scale, middle = _unit_scale(g)
        mixed = g.op(
            "com.microsoft::QLinearConv",
            *(x, scale, middle, weight, scales, zeros, scale, middle, bias),
            channels_last_i=1,
            dilations_i=[dilation],
        )
        mixed.setType(x.type().with_sizes([None, None, outputs]))
        return mixed


class ByteProduct(torch.autograd.Function):
    """`MatMulIntegerToFloat`: bytes `[count, inputs]` by int8 `[inputs, outputs]` to float32 `[count, outputs]`.

    Float32 scales and bias `[outputs]`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor) -> Tensor:
        return (((x.double() - BYTE_MIDDLE) @ weight.double()) * scales + bias).float()

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, scales: Any, bias: Any) -> Any:
        scale, middle = _unit_scale(g)
        zero = g.op("Constant", value_t=torch.tensor(0, dtype=torch.int8))
        product = g.op("com.microsoft::MatMulIntegerToFloat", x, weight, scale, scales, middle, zero, bias)
        product.setType(x.type().with_sizes([None, weight.type().sizes()[1]]).with_dtype(torch.float32))
        return product


class MergeSteps(torch.autograd.Function):
    """`[rows, steps, channels]` -> `[rows * steps, channels]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, channels: int) -> Tensor:
        return x.flatten(0, 1)

    @staticmethod
    def symbolic(g: Any, x: Any, channels: int) -> Any:
        merged = g.op("Reshape", x, g.op("Constant", value_t=torch.tensor([-1, channels])))
        merged.setType(x.type().with_sizes([None, channels]))
        return merged


class LikeShape(torch.autograd.Function):
    """`x` in the shape of another tensor of as many values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor) -> Tensor:
        return x.view(other.shape)

    @staticmethod
    def symbolic(g: Any, x: Any, other: Any) -> Any:
        shaped = g.op("Reshape", x, g.op("Shape", other))
        shaped.setType(other.type().with_dtype(x.type().dtype()))
        return shaped


class SplitSteps(torch.autograd.Function):
    """`[rows, steps, parts * channels]` -> `[rows, steps * parts, channels]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, channels: int) -> Tensor:
        return x.unflatten(2, (-1, channels)).flatten(1, 2)

    @staticmethod
    def symbolic(g: Any, x: Any, channels: int) -> Any:
        split = g.op("Reshape", x, g.op("Constant", value_t=torch.tensor([0, -1, channels])))
        split.setType(x.type().with_sizes([None, None, channels]))
        return split


def _unit_scale(g: Any) -> tuple[Any, Any]:
    """Scale and zero of every quantised tensor."""
    scale = g.op("Constant", value_t=torch.tensor(1.0))
    return scale, g.op("Constant", value_t=torch.tensor(BYTE_MIDDLE, dtype=torch.uint8))
