"""The codec decoder: codec frames to a waveform, with explicit state.

Structure and names follow the checkpoint's `speech_tokenizer` (decoder half of the 12 Hz tokenizer). The official
package decodes 300 frames at a time with 25 frames of context, which is approximate beyond the first chunk; this
decoder carries every layer's past and equals the official decoder run over all frames at once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PretrainedConfig

from export.checkpoint import Checkpoint
from export.graphs.codec_layers import Quantizer, Transformer
from export.graphs.graph import Axes, GraphConfig, state_axes
from export.graphs.streaming import CausalConv, CausalConvTranspose, StateSpec, Stream

SNAKE_EPSILON = 1e-9
CONVNEXT_KERNEL, PRE_KERNEL, EDGE_KERNEL = 7, 3, 7
DILATIONS = (1, 3, 9)
SQUARED_SINE = (9.869597909515395, -32.46839073325047, 42.686222305490325, -29.642556693811823, 10.95222853169546)
"""Coefficients of `sin(pi sqrt(t))^2 / t` on [0, 1/4], rising; a Chebyshev fit, `t` times it is off by 1.6e-6."""


class ConvNeXt(nn.Module):
    """Depthwise convolution and pointwise feed-forward with a residual."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = CausalConv(dim, dim, CONVNEXT_KERNEL, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        hidden = self.norm(self.dwconv(x, stream).transpose(1, 2))
        hidden = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(hidden)))
        return x + hidden.transpose(1, 2)


class _SnakeFactors(NamedTuple):
    """What a snake computes of its weights, `[channels, 1]` each: `exp(alpha)`, `1 / exp(beta)`, the first by pi, and
    the coefficients of `SQUARED_SINE` times the second."""

    frequency: Tensor
    scale: Tensor
    turn: Tensor
    terms: list[Tensor]


class SnakeBeta(nn.Module):
    """`x + sin(x * exp(alpha))^2 / exp(beta)` by channel (https://arxiv.org/abs/2006.08195).

    The squared sine has period pi and is even: `sin(pi r)^2 = t * polynomial(t)` with `t = r^2`, `r` in [-1/2, 1/2].
    ONNX Runtime's `Sin` for CPUs is scalar and runs on one core; these products run on all.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))
        self.by_sine = False
        """Whether to trace into the sine itself: a GPU reads and writes all of `x` for each node, so that the fewest
        are the fastest there."""

        self._kept: _SnakeFactors | None = None

    def prepare(self) -> None:
        """Keep what is computed of the weights alone; to be called once they are there and stay as they are.

        Traced, each of its operations would be a node of the graph, and these most of its nodes, which the exporter and
        ONNX Runtime would have to fold again.
        """
        with torch.no_grad():
            self._kept = self._factors()

    def _factors(self) -> _SnakeFactors:
        frequency, scale = (values[:, None] for values in (self.alpha.exp(), 1.0 / (self.beta.exp() + SNAKE_EPSILON)))
        return _SnakeFactors(frequency, scale, frequency / math.pi, [factor * scale for factor in SQUARED_SINE])

    def forward(self, x: Tensor, axis: int = 1) -> Tensor:
        """The norm of `x`, whose axis of channels is the last one, or the one before it."""

        def along(values: Tensor) -> Tensor:
            return values if axis < x.ndim - 1 else values.flatten()

        factors = self._kept or self._factors()
        if self.by_sine:
            sine = torch.sin(x * along(factors.frequency))
            return x + sine * sine * along(factors.scale)
        turns = x * along(factors.turn)
        r = turns - turns.round()
        t = r * r
        *lower, value = map(along, factors.terms)
        for term in reversed(lower):
            value = value * t + term
        return x + value * t


class ResidualUnit(nn.Module):
    """Snake, dilated convolution, snake, pointwise convolution, residual."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.act1, self.act2 = SnakeBeta(dim), SnakeBeta(dim)
        self.conv1 = CausalConv(dim, dim, 7, dilation=dilation)
        self.conv2 = CausalConv(dim, dim, 1)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return x + self.conv2(self.act2(self.conv1(self.act1(x), stream)), stream)


class UpsampleBlock(nn.Module):
    """Snake, transposed convolution by `rate`, three residual units."""

    def __init__(self, inputs: int, outputs: int, rate: int) -> None:
        super().__init__()
        self.block = nn.ModuleList([SnakeBeta(inputs), CausalConvTranspose(inputs, outputs, 2 * rate, rate)])
        self.block.extend(ResidualUnit(outputs, dilation) for dilation in DILATIONS)

    def states(self, name: str) -> list[StateSpec]:
        """The carried tensors of the transposed convolution, then those of each unit."""
        _, transposed, *units = self.block
        specs = transposed.states(f"{name}.upsample")
        for index, unit in enumerate(units):
            specs += unit.conv1.states(f"{name}.unit.{index}")
        return specs

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        snake, transposed, *units = self.block
        x = transposed(snake(x), stream)
        for unit in units:
            x = unit(x, stream)
        return x


class CodecDecoder(nn.Module):
    """The whole decoder.

    Shapes: `codes` int64 `[rows, frames, num_quantizers]`, `position` int64 `[rows]`, `past` as `states()` lists;
    returns `waveform` float32 `[rows, frames * samples_per_frame]` in [-1, 1] and the next state in the same order.
    """

    PREFIX = "decoder."
    """How the names of its tensors begin in the checkpoint's speech tokenizer."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = PretrainedConfig()
        self.codec_config = config
        size, dim, latent = config["codebook_size"], config["codebook_dim"], config["latent_dim"]
        self.quantizer = nn.Module()
        self.quantizer.rvq_first = Quantizer(1, size, dim // 2, dim)
        self.quantizer.rvq_rest = Quantizer(config["num_quantizers"] - 1, size, dim // 2, dim)
        self.pre_conv = CausalConv(dim, latent, PRE_KERNEL)
        self.pre_transformer = Transformer(config)
        self.upsample = nn.ModuleList(
            nn.ModuleList([CausalConvTranspose(latent, latent, ratio, ratio), ConvNeXt(latent)])
            for ratio in config["upsampling_ratios"]
        )
        width, rates = config["decoder_dim"], config["upsample_rates"]
        blocks = [UpsampleBlock(width >> i, width >> (i + 1), rate) for i, rate in enumerate(rates)]
        last = width >> len(rates)
        self.decoder = nn.ModuleList(
            [CausalConv(latent, width, EDGE_KERNEL), *blocks, SnakeBeta(last), CausalConv(last, 1, EDGE_KERNEL)]
        )

    @classmethod
    def on_meta(cls, checkpoint: Checkpoint) -> Self:
        """Build the module without weights."""
        with torch.device("meta"):
            return cls(checkpoint.codec_config["decoder_config"])

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Self:
        """Build the module with the checkpoint's weights, in float32."""
        decoder = cls.on_meta(checkpoint)
        checkpoint.load_into(decoder, cls.PREFIX, codec=True)
        return decoder.prepare()

    def prepare(self) -> Self:
        """Compute what is computed of the weights alone; to be called once they are there."""
        for module in self.modules():
            if isinstance(module, (Quantizer, SnakeBeta)):
                module.prepare()
        return self.eval()

    @property
    def blocks(self) -> list[Any]:
        """The upsampling blocks, or what stands for them; the first is `decoder[1]`."""
        return list(self.decoder)[1:-2]

    def for_device(self) -> Self:
        """Have the graph that is traced of it suit a GPU."""
        for module in self.modules():
            if isinstance(module, SnakeBeta):
                module.by_sine = True
            elif isinstance(module, CausalConv):
                module.over_two_axes = False
        return self

    def states(self) -> list[StateSpec]:
        """The carried tensors, in the order in which `past` holds them."""
        specs = self.front_states()
        for index, block in enumerate(self.blocks):
            specs += block.states(f"block.{index}")
        return specs + self.tail_states()

    def front_states(self) -> list[StateSpec]:
        """Those of `front`."""
        specs = self.pre_conv.states("pre_conv") + self.pre_transformer.states("transformer")
        for index, (transposed, convnext) in enumerate(self.upsample):
            specs += transposed.states(f"upsample.{index}") + convnext.dwconv.states(f"convnext.{index}")
        first: list[StateSpec] = self.decoder[0].states("first")
        return specs + first

    def tail_states(self) -> list[StateSpec]:
        """Those of `tail`."""
        last: list[StateSpec] = self.decoder[-1].states("last")
        return last

    def forward(self, codes: Tensor, position: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        stream = Stream(past)
        hidden = self.front(codes, position, stream)
        for block in self.blocks:
            hidden = block(hidden, stream)
        return self.tail(hidden, stream), *stream.next

    def front(self, codes: Tensor, position: Tensor, stream: Stream) -> Tensor:
        """Codes to what the first upsampling block is given, `[rows, decoder_dim, steps]`."""
        hidden = self.quantizer.rvq_first(codes[..., :1]) + self.quantizer.rvq_rest(codes[..., 1:])
        hidden = self.pre_conv(hidden, stream).transpose(1, 2)
        hidden = self.pre_transformer(hidden, position, stream).transpose(1, 2)
        for transposed, convnext in self.upsample:
            hidden = convnext(transposed(hidden, stream), stream)
        first: Tensor = self.decoder[0](hidden, stream)
        return first

    def tail(self, hidden: Tensor, stream: Stream) -> Tensor:
        """What the last upsampling block gives to samples, `[rows, samples]`."""
        *_, snake, last = self.decoder
        waveform: Tensor = last(snake(hidden), stream).clamp(-1, 1).squeeze(1)
        return waveform


@torch.inference_mode()
def decode_whole(decoder: CodecDecoder, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Samples of codes `[frames, num_quantizers]`, from nothing and in one go."""
    past = [torch.zeros(1, *spec.shape) for spec in decoder.states()]
    waveform, *_ = decoder(torch.from_numpy(codes)[None], torch.zeros(1, dtype=torch.long), past)
    return np.array(waveform[0])


class CodecDecoderOnnxConfig(GraphConfig):
    """Declaration of the codec decoder graph."""

    module: CodecDecoder

    def _names(self) -> list[str]:
        return [spec.name for spec in self.module.states()]

    @property
    def inputs(self) -> Axes:
        return {
            "codes": {0: "rows", 1: "frames"},
            "position": {0: "rows"},
            **state_axes("past", self._names(), {0: "rows"}),
        }

    @property
    def outputs(self) -> Axes:
        return {"waveform": {0: "rows", 1: "samples"}, **state_axes("next", self._names(), {0: "rows"})}

    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        config, rows, frames = self.module.codec_config, 2, 3
        return {
            "codes": torch.randint(config["codebook_size"], (rows, frames, config["num_quantizers"])),
            "position": torch.tensor([0, 100]),
            "past": [0.1 * torch.randn(rows, *spec.shape) for spec in self.module.states()],
        }
