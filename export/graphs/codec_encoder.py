"""The codec's encoder: a waveform to codec frames, with explicit state, so that a long recording takes little memory.

Structure and names follow the checkpoint's `speech_tokenizer` (encoder half of the 12 Hz tokenizer), which is the
encoder of transformers' `MimiModel` with full causal attention. All of it is causal: a recording may be given in parts,
all but the last of which are whole frames.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from export.checkpoint import Checkpoint
from export.cloning_config import DOWNSAMPLING
from export.graphs.codec_layers import CODEBOOK_EPSILON, LayerScale
from export.graphs.graph import Axes, GraphConfig, state_axes
from export.graphs.layers import inverse_frequencies
from export.graphs.operators import rotate
from export.graphs.streaming import CausalConv, StateSpec, Stream


class StridedConv(CausalConv):
    """Causal convolution that steps by `stride`; what the input lacks to whole steps is filled up at its end."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, bias: bool = True, fill: str = "constant") -> None:
        super().__init__(inputs, outputs, 2 * stride)
        self.conv = nn.Conv1d(inputs, outputs, 2 * stride, stride=stride, bias=bias)
        self.context, self.fill = stride, fill

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        # `stride - 1` are enough for any length, and one that needs fewer gets no more steps of them.
        (stride,) = self.conv.stride
        return self.conv(nn.functional.pad(stream.extend(x, 2, self.context), (0, stride - 1), mode=self.fill))


class EncoderBlock(nn.Module):
    """ELU, dilated convolution, ELU, pointwise convolution, residual."""

    def __init__(self, dim: int, hidden: int, kernel: int, dilation: int) -> None:
        super().__init__()
        convolutions = CausalConv(dim, hidden, kernel, dilation=dilation), CausalConv(hidden, dim, 1)
        self.block = nn.ModuleList([nn.ELU(), convolutions[0], nn.ELU(), convolutions[1]])

    def states(self, name: str) -> list[StateSpec]:
        """The carried input of the dilated convolution."""
        return self.block[1].states(name)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        first, dilated, second, pointwise = self.block
        return x + pointwise(second(dilated(first(x), stream)), stream)


class FullAttention(nn.Module):
    """Causal attention over all positions, rotary by position. Keys and values of the past come and go as states."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, bias = config["hidden_size"], config["attention_bias"]
        self.heads, self.kv_heads, self.head_dim = (
            config[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim")
        )
        self.q_proj = nn.Linear(hidden, self.heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.head_dim, hidden, bias=bias)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Tensor, stream: Stream) -> Tensor:
        query = rotate(self.q_proj(x).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2), cos, sin)
        key = rotate(self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2), cos, sin)
        value = self.v_proj(x).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
        key, value = torch.cat((stream.take(), key), dim=2), torch.cat((stream.take(), value), dim=2)
        stream.leave(key)
        stream.leave(value)
        if self.heads != self.kv_heads:
            shared = torch.arange(self.heads) // (self.heads // self.kv_heads)
            key, value = key.index_select(1, shared), value.index_select(1, shared)
        scores = query @ key.transpose(2, 3) * self.head_dim**-0.5
        weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
        return self.o_proj((weights @ value).transpose(1, 2).flatten(-2))


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each scaled by channel."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, eps = config["hidden_size"], config["norm_eps"]
        self.self_attn = FullAttention(config)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(hidden, config["intermediate_size"], bias=False)
        self.mlp.fc2 = nn.Linear(config["intermediate_size"], hidden, bias=False)
        self.input_layernorm, self.post_attention_layernorm = nn.LayerNorm(hidden, eps), nn.LayerNorm(hidden, eps)
        self.self_attn_layer_scale, self.mlp_layer_scale = LayerScale(hidden), LayerScale(hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Tensor, stream: Stream) -> Tensor:
        x = x + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(x), cos, sin, visible, stream))
        fed = self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.post_attention_layernorm(x))))
        return x + self.mlp_layer_scale(fed)


class EncoderTransformer(nn.Module):
    """The transformer between the convolutions and the last of them."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config["num_hidden_layers"]))
        self.cache_shape = (config["num_key_value_heads"], 1, config["head_dim"])
        self.theta = config["rope_theta"]

    def caches(self) -> list[StateSpec]:
        """Names of keys and values, and their sizes at one position."""
        return [
            StateSpec(f"{layer}.{part}", self.cache_shape)
            for layer in range(len(self.layers))
            for part in ("key", "value")
        ]

    def forward(self, x: Tensor, begun: Tensor, stream: Stream) -> tuple[Tensor, Tensor]:
        """`[1, steps, hidden]` in and out, and the steps' positions, behind those of the keys `begun`."""
        everything = torch.arange(begun.size(2) + x.size(1))
        positions = everything[begun.size(2) :]
        visible = everything[None, :] <= positions[:, None]
        angles = positions[:, None].float() * inverse_frequencies(self.cache_shape[-1], self.theta)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin(), visible, stream)
        return x, positions


class NearestCodes(nn.Module):
    """Residual quantiser: the nearest vector of each codebook to what the ones before it have left."""

    def __init__(self, count: int, hidden: int, dim: int, size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Module() for _ in range(count))
        for layer in self.layers:
            layer.codebook = nn.Module()
            layer.codebook.cluster_usage = nn.Parameter(torch.empty(size))
            layer.codebook.embed_sum = nn.Parameter(torch.empty(size, dim))
        if dim != hidden:
            self.input_proj = nn.Conv1d(hidden, dim, 1, bias=False)
        self.projects = dim != hidden

    def prepare(self) -> None:
        """Make the codebooks' vectors; to be called once the weights are there."""
        for layer in self.layers:
            book = layer.codebook
            vectors = book.embed_sum / book.cluster_usage.clamp(min=CODEBOOK_EPSILON)[:, None]
            layer.register_buffer("vectors", vectors.detach(), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`[1, hidden, frames]` to the codes of each codebook, `[1, frames]`."""
        residual = (self.input_proj(x) if self.projects else x).transpose(1, 2)
        codes = []
        for layer in self.layers:
            # The nearest by squared distance, without the part that is the same for all.
            closeness = 2 * residual @ layer.vectors.T - layer.vectors.square().sum(-1)
            codes.append(closeness.argmax(-1))
            residual = residual - nn.functional.embedding(codes[-1], layer.vectors)
        return codes


class CodecEncoder(nn.Module):
    """The whole encoder.

    Shapes: `waveform` float32 `[1, samples]` at 24 kHz, `past` as `states()` lists, then two a layer, keys and values
    `[1, kv_heads, positions, head_dim]`; returns `codes` int64 `[1, frames, groups]` and the next state in the same
    order. A part that is not the recording's last must be whole frames.
    """

    PREFIX = "encoder."
    """How the names of its tensors begin in the checkpoint's speech tokenizer."""

    def __init__(self, config: dict[str, Any], groups: int) -> None:
        super().__init__()
        self.config = PretrainedConfig()
        self.encoder_config = config
        width, hidden = config["num_filters"], config["hidden_size"]
        layers: list[nn.Module] = [CausalConv(1, width, config["kernel_size"])]
        for ratio in reversed(config["upsampling_ratios"]):
            for index in range(config["num_residual_layers"]):
                dilation, inner = config["dilation_growth_rate"] ** index, width // config["compress"]
                layers.append(EncoderBlock(width, inner, config["residual_kernel_size"], dilation))
            layers += [nn.ELU(), StridedConv(width, 2 * width, ratio)]
            width *= 2
        layers += [nn.ELU(), CausalConv(width, hidden, config["last_kernel_size"])]
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(layers)
        self.encoder_transformer = EncoderTransformer(config)
        self.downsample = StridedConv(hidden, hidden, DOWNSAMPLING, bias=False, fill="replicate")
        dim, size = config["codebook_dim"], config["codebook_size"]
        self.quantizer = nn.Module()
        self.quantizer.semantic_residual_vector_quantizer = NearestCodes(1, hidden, dim, size)
        self.quantizer.acoustic_residual_vector_quantizer = NearestCodes(groups - 1, hidden, dim, size)
        self.samples_per_frame = DOWNSAMPLING * math.prod(config["upsampling_ratios"])

    @classmethod
    def on_meta(cls, checkpoint: Checkpoint) -> CodecEncoder:
        """Build the module without weights."""
        config = checkpoint.codec_config
        with torch.device("meta"):
            return cls(config["encoder_config"], config["encoder_valid_num_quantizers"])

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> CodecEncoder:
        """Build the module with the checkpoint's weights, in float32."""
        encoder = cls.on_meta(checkpoint)
        checkpoint.load_into(encoder, cls.PREFIX, codec=True)
        encoder.quantizer.semantic_residual_vector_quantizer.prepare()
        encoder.quantizer.acoustic_residual_vector_quantizer.prepare()
        return encoder.eval()

    def states(self) -> list[StateSpec]:
        """The carried tensors of fixed size, in the order in which `past` holds them, before keys and values."""
        specs: list[StateSpec] = []
        for index, layer in enumerate(self.encoder.layers):
            if isinstance(layer, CausalConv | EncoderBlock):
                specs += layer.states(f"layer.{index}")
        return [*specs, *self.downsample.states("downsample")]

    def forward(self, waveform: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        *fixed, begun = past[: len(past) - len(self.encoder_transformer.caches())]
        caches = past[len(fixed) + 1 :]
        stream, growing = Stream(fixed), Stream(caches)
        x = waveform[:, None]
        for layer in self.encoder.layers:
            x = layer(x) if isinstance(layer, nn.ELU) else layer(x, stream)
        x, positions = self.encoder_transformer(x.transpose(1, 2), caches[0], growing)
        x = x.transpose(1, 2)
        # Before a recording stands its first step, repeated, as the official encoder pads.
        last = Stream([torch.where(positions[0] > 0, begun, x[:, :, :1].expand_as(begun))])
        x = self.downsample(x, last)
        quantizer = self.quantizer
        codes = quantizer.semantic_residual_vector_quantizer(x) + quantizer.acoustic_residual_vector_quantizer(x)
        return torch.stack(codes, dim=-1), *stream.next, *last.next, *growing.next


class CodecEncoderOnnxConfig(GraphConfig):
    """Declaration of the codec encoder graph."""

    module: CodecEncoder

    def _names(self) -> tuple[list[str], list[str]]:
        growing = self.module.encoder_transformer.caches()
        return [spec.name for spec in self.module.states()], [spec.name for spec in growing]

    @property
    def inputs(self) -> Axes:
        fixed, growing = self._names()
        return {
            "waveform": {1: "samples"},
            **state_axes("past", fixed, {}),
            **state_axes("past", growing, {2: "positions"}),
        }

    @property
    def outputs(self) -> Axes:
        fixed, growing = self._names()
        return {
            "codes": {1: "frames"},
            **state_axes("next", fixed, {}),
            **state_axes("next", growing, {2: "all_positions"}),
        }

    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        fixed = [0.1 * torch.randn(1, *spec.shape) for spec in self.module.states()]
        transformer = self.module.encoder_transformer
        heads, _, head_dim = transformer.cache_shape
        growing = [torch.randn(1, heads, 6, head_dim) for _ in transformer.caches()]
        samples = 3 * self.module.samples_per_frame + 1
        return {"waveform": 0.1 * torch.randn(1, samples), "past": [*fixed, *growing]}
