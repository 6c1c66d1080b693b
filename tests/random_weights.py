"""Random weights under the official tensor names, scaled so that greedy codes vary and audio is not flat or clipped."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils import logging

from export.graphs.codec_decoder import CodecDecoder, decode_whole
from tests.oracle import official_package

Weights = dict[str, Tensor]


def empty_models(config: dict[str, Any], codec: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """The official model and speech tokenizer on the meta device, for their names and shapes.

    Args:
        config: `config.json`.
        codec: `speech_tokenizer/config.json`.
    """
    official_package()
    from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model
    from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration

    previous = logging.get_verbosity()
    logging.set_verbosity(50)  # the classes warn of unset defaults that the documents below do set
    try:
        with torch.device("meta"):
            model = Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**copy.deepcopy(config)))
            speech_tokenizer = Qwen3TTSTokenizerV2Model(Qwen3TTSTokenizerV2Config(**copy.deepcopy(codec)))
    finally:
        logging.set_verbosity(previous)
    return model, speech_tokenizer


class Draw:
    """Values for parameters; the same seed gives the same ones in the same order."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, shape: torch.Size, std: float, mean: float = 0.0) -> Tensor:
        return torch.randn(shape, generator=self.generator) * std + mean

    def weights_of(self, module: nn.Module, name: str, shape: torch.Size) -> Tensor:
        """A value for the parameter `name` of `module`: variance is kept from input to output."""
        if name == "bias":
            return self.normal(shape, 0.1)
        if isinstance(module, nn.ConvTranspose1d):
            taps = module.kernel_size[0] / module.stride[0]
            return self.normal(shape, 1 / math.sqrt(module.in_channels / module.groups * taps))
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            return self.normal(shape, 1 / math.sqrt(shape[1:].numel()))
        if isinstance(module, nn.Embedding):
            return self.normal(shape, 1.0)
        if name in ("alpha", "beta"):
            return self.normal(shape, 0.3)
        if name in ("scale", "gamma"):
            return self.normal(shape, 0.1, 0.4)
        if name == "weight":  # what is left are norms
            return self.normal(shape, 0.1, 1.0)
        raise ValueError(f"{type(module).__name__}.{name}: no rule for this parameter")

    def codebook(self, entries: int, width: int) -> dict[str, Tensor]:
        """A codebook as training leaves it: sums of what fell into each entry, and some entries never used."""
        usage = torch.rand(entries, generator=self.generator) * 1.5 + 0.5
        usage[:: max(entries // 8, 1)] = 0.0
        return {"cluster_usage": usage, "sum": self.normal(torch.Size((entries, width)), 1.0) * usage[:, None]}


@dataclass(frozen=True)
class Gains:
    """Factors of weights whose layers would keep the variance of what they are given.

    `blocks` is for the convolutions of the codec decoder's upsampling blocks: snake activations and residual sums widen
    the signal in each, so that 0.5 keeps it near 1 and 1.0 makes it several hundred. `residuals` is for what the layers
    of talker and code predictor add to their residual streams.
    """

    blocks: float = 0.5
    residuals: float = 1.0

    def of(self, name: str) -> float:
        """The factor of the tensor of that name."""
        if "codec_head" in name or "lm_head" in name:
            return 3.0  # far enough apart for greedy choices
        if name.startswith("encoder.downsample."):
            return 4.0  # among the codebooks' vectors, so that codes of recordings vary
        if "text_projection" in name:
            return 2.0  # SiLU narrows it
        if name.startswith("decoder.decoder.") and ".block." in name and name.endswith("conv.weight"):
            return self.blocks
        if name.startswith("talker.") and name.endswith(("o_proj.weight", "down_proj.weight")):
            return self.residuals
        return 1.0


def values_of(model: nn.Module, draw: Draw, gains: Gains | None = None) -> Iterator[tuple[str, Tensor]]:
    """Name and float32 value of everything that `model` saves, drawn one by one."""
    gains = gains or Gains()
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        values = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        names = [name for name in values if name not in module._non_persistent_buffers_set]
        if "cluster_usage" in names:
            sums = next(name for name in names if name.endswith("sum"))
            book = draw.codebook(*values[sums].shape)
            yield f"{prefix}cluster_usage", book["cluster_usage"]
            yield f"{prefix}{sums}", book["sum"]
            if "initialized" in names:
                yield f"{prefix}initialized", torch.ones(values["initialized"].shape)
        elif not type(module).__name__.startswith("MimiConv"):  # whose buffers are sizes that the class computes itself
            for name in names:
                yield prefix + name, draw.weights_of(module, name, values[name].shape) * gains.of(prefix + name)


def draw_weights(
    config: dict[str, Any], codec: dict[str, Any], seed: int, eos_scale: float, gains: Gains
) -> tuple[Weights, Weights]:
    """Float32 tensors of `model.safetensors` and of `speech_tokenizer/model.safetensors`.

    Args:
        config: `config.json`.
        codec: `speech_tokenizer/config.json`.
        seed: the same seed gives the same weights.
        eos_scale: multiplies the row of the talker's head that ends speech.
        gains: factors of other weights.
    """
    draw = Draw(seed)
    model, speech_tokenizer = empty_models(config, codec)
    weights, codec_weights = (dict(values_of(one, draw, gains)) for one in (model, speech_tokenizer))
    weights["talker.codec_head.weight"][config["talker_config"]["codec_eos_token_id"]] *= eos_scale
    last = len(codec["decoder_config"]["upsample_rates"]) + 2
    codec_weights[f"decoder.decoder.{last}.conv.weight"] *= 0.3
    return weights, codec_weights


def scale_to_peak(codec_weights: Weights, config: dict[str, Any], peak: float) -> None:
    """Scale the last convolution of a speech tokenizer, in place, so that a few random frames are as loud as that."""
    decoder = CodecDecoder(config["decoder_config"])
    last = [name for name in codec_weights if name.startswith(f"decoder.decoder.{len(decoder.decoder) - 1}.")]
    for name in last:
        codec_weights[name] *= 1e-6  # far from where the decoder clips
    decoder.load_state_dict({name: codec_weights[f"decoder.{name}"] for name in decoder.state_dict()})
    decoder.prepare()
    size, groups = config["decoder_config"]["codebook_size"], config["decoder_config"]["num_quantizers"]
    codes = np.random.default_rng(0).integers(size, size=(20, groups))
    loudest = float(np.abs(decode_whole(decoder, codes)).max())
    for name in last:
        codec_weights[name] *= peak / loudest
