"""What only `base` checkpoints have in their configuration: the speaker encoder and the codec's encoder, checked.

Values that a file leaves out are those of the official package's and of transformers' configuration classes.
"""

from __future__ import annotations

import math
from typing import Any

from export.weights import CheckpointError
from server.engine.reference import SAMPLE_RATE

_LARGEST_SIZE, _MOST_LAYERS = 1 << 16, 1024
"""Bounds far above any checkpoint, so that a slip in a file is an error and not an enormous model."""

SPEAKER_DEFAULTS: dict[str, Any] = {
    "mel_dim": 128,
    "enc_dim": 1024,
    "enc_channels": [512, 512, 512, 512, 1536],
    "enc_kernel_sizes": [5, 3, 3, 3, 1],
    "enc_dilations": [1, 2, 3, 4, 1],
    "enc_attention_channels": 128,
    "enc_res2net_scale": 8,
    "enc_se_channels": 128,
    "sample_rate": SAMPLE_RATE,
}
"""Of the package's `Qwen3TTSSpeakerEncoderConfig`."""
ENCODER_DEFAULTS: dict[str, Any] = {
    "attention_bias": False,
    "audio_channels": 1,
    "codebook_dim": 256,
    "codebook_size": 2048,
    "compress": 2,
    "dilation_growth_rate": 2,
    "hidden_act": "gelu",
    "hidden_size": 512,
    "intermediate_size": 2048,
    "kernel_size": 7,
    "last_kernel_size": 3,
    "norm_eps": 1e-5,
    "num_attention_heads": 8,
    "num_filters": 64,
    "num_hidden_layers": 8,
    "num_key_value_heads": 8,
    "num_quantizers": 32,
    "num_residual_layers": 1,
    "num_semantic_quantizers": 1,
    "pad_mode": "constant",
    "residual_kernel_size": 3,
    "rope_theta": 10000.0,
    "sampling_rate": SAMPLE_RATE,
    "upsampling_ratios": [8, 6, 5, 4],
    "use_causal_conv": True,
    "use_conv_shortcut": False,
    "vector_quantization_hidden_dimension": 256,
}
"""Of transformers' `MimiConfig`, as far as its encoder has to do with it."""
DOWNSAMPLING = 2
"""The factor of the last convolution, behind the encoder's transformer."""
_MEL_BANDS, _SPEAKER_LISTS = 128, ("enc_channels", "enc_kernel_sizes", "enc_dilations")
_ENCODER_SIZES = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "codebook_dim", "codebook_size",
    "compress", "dilation_growth_rate", "kernel_size", "last_kernel_size", "num_filters", "residual_kernel_size",
    "vector_quantization_hidden_dimension",
)  # fmt: skip


def complete_cloning(config: dict[str, Any], codec: dict[str, Any], codec_file: str) -> None:
    """Fill in and check, in place, `speaker_encoder_config` of `config.json` and `encoder_config` of the codec's.

    Args:
        config: `config.json` of a `base` checkpoint, its other sections checked.
        codec: `speech_tokenizer/config.json`, the same.
        codec_file: name of that file in messages.

    Raises:
        CheckpointError: naming the value and what was expected.
    """
    config["speaker_encoder_config"] = _section(config, "speaker_encoder_config", "config.json", SPEAKER_DEFAULTS)
    _check_speaker_encoder(config["speaker_encoder_config"], config["talker_config"]["hidden_size"])
    encoder = codec["encoder_config"] = _section(codec, "encoder_config", codec_file, ENCODER_DEFAULTS)
    where = f"{codec_file}: encoder_config"
    _check_encoder(where, encoder)
    groups, codebook = config["talker_config"]["num_code_groups"], codec["decoder_config"]["codebook_size"]
    _expect(where, "codebook_size", encoder["codebook_size"], codebook)
    _expect(codec_file, "encoder_valid_num_quantizers", codec.get("encoder_valid_num_quantizers"), groups)
    if not groups <= encoder["num_quantizers"] <= _MOST_LAYERS:
        raise CheckpointError(f"{where}: num_quantizers is {encoder['num_quantizers']}, expected at least {groups}")
    _expect(codec_file, "input_sample_rate", codec.get("input_sample_rate"), SAMPLE_RATE)
    _expect(codec_file, "output_sample_rate", codec["output_sample_rate"], SAMPLE_RATE)
    step = DOWNSAMPLING * math.prod(encoder["upsampling_ratios"])
    _expect(codec_file, "encode_downsample_rate", codec.get("encode_downsample_rate"), step)
    _expect(codec_file, "decode_upsample_rate", codec["decode_upsample_rate"], step)


def _section(parent: dict[str, Any], name: str, where: str, defaults: dict[str, Any]) -> dict[str, Any]:
    section = parent.get(name)
    if section is None:
        section = {}
    if not isinstance(section, dict):
        raise CheckpointError(f"{where}: {name} is {section!r}, expected an object")
    return defaults | {key: value for key, value in section.items() if value is not None}


def _check_speaker_encoder(section: dict[str, Any], hidden_size: int) -> None:
    where = "config.json: speaker_encoder_config"
    _expect(where, "mel_dim", section["mel_dim"], _MEL_BANDS)
    _expect(where, "sample_rate", section["sample_rate"], SAMPLE_RATE)
    _expect(where, "enc_dim", section["enc_dim"], hidden_size)
    for name in _SPEAKER_LISTS:
        values = section[name]
        if not (isinstance(values, list) and all(_is_size(value) for value in values)):
            raise CheckpointError(f"{where}: {name} is {values!r}, expected a list of integers above 0")
    blocks = len(section["enc_channels"])
    if blocks < 3 or any(len(section[name]) != blocks for name in _SPEAKER_LISTS):
        raise CheckpointError(f"{where}: {', '.join(_SPEAKER_LISTS)} must have equally many entries, at least three")
    _check_sizes(where, section, ("enc_attention_channels", "enc_res2net_scale", "enc_se_channels"))
    first, *middle = section["enc_channels"][:-1]
    if any(channels != first or channels % section["enc_res2net_scale"] for channels in middle):
        raise CheckpointError(
            f"{where}: enc_channels {section['enc_channels']} must be equal but for the last, and multiples of "
            f"enc_res2net_scale {section['enc_res2net_scale']}"
        )
    if section["enc_channels"][-1] != sum(middle):
        raise CheckpointError(f"{where}: the last of enc_channels must be the sum of those before it but the first")


def _check_encoder(where: str, section: dict[str, Any]) -> None:
    _check_sizes(where, section, _ENCODER_SIZES)
    for name in ("num_hidden_layers", "num_residual_layers"):
        if not _is_size(section[name]) or section[name] > _MOST_LAYERS:
            raise CheckpointError(f"{where}: {name} is {section[name]!r}, expected 1 to {_MOST_LAYERS}")
    section.setdefault("head_dim", section["hidden_size"] // section["num_attention_heads"])
    ratios = section["upsampling_ratios"]
    if not (isinstance(ratios, list) and ratios and all(_is_size(ratio) for ratio in ratios)):
        raise CheckpointError(f"{where}: upsampling_ratios is {ratios!r}, expected a list of integers above 0")
    only = {
        "audio_channels": 1, "hidden_act": "gelu", "num_semantic_quantizers": 1, "pad_mode": "constant",
        "sampling_rate": SAMPLE_RATE, "use_causal_conv": True, "use_conv_shortcut": False,
        "codebook_dim": section["vector_quantization_hidden_dimension"],
    }  # fmt: skip
    for name, value in only.items():
        _expect(where, name, section[name], value)
    rate = section.get("frame_rate") or section.get("_frame_rate")
    if rate is not None:
        _expect(where, "_frame_rate", rate, SAMPLE_RATE / (DOWNSAMPLING * math.prod(ratios)))
    refused = {
        "head_dim": not _is_size(section["head_dim"]) or section["head_dim"] % 2 != 0,
        "num_key_value_heads": section["num_attention_heads"] % section["num_key_value_heads"] != 0,
        "compress": section["num_filters"] < section["compress"],
        "rope_scaling": (section.get("rope_scaling") or {}).get("rope_type", "default") != "default",
    }
    for name, bad in refused.items():
        if bad:
            raise CheckpointError(f"{where}: {name} {section[name]!r} is not supported")
    for name in ("rope_theta", "norm_eps"):
        value = section[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise CheckpointError(f"{where}: {name} is {value!r}, expected a number above 0")


def _check_sizes(where: str, section: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if not _is_size(section[name]):
            raise CheckpointError(f"{where}: {name} is {section[name]!r}, expected 1 to {_LARGEST_SIZE}")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_SIZE


def _expect(where: str, name: str, found: object, expected: object) -> None:
    if found != expected:
        raise CheckpointError(f"{where}: {name} is {found!r}, expected {expected!r}")
