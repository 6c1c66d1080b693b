"""Random checkpoints in the official layout: structurally faithful, tiny beside the text table.

`python -m tests.checkpoints SHAPE FOLDER` writes one by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.qwen_vocabulary import ALL_RANKS, vocabulary
from tests.random_weights import Gains, draw_weights, scale_to_peak

_RESERVED_IDS = 1024  # the official package suppresses the last 1024 ids of the talker's vocabulary

LANGUAGES = {
    "chinese": 7, "english": 2, "german": 5, "italian": 22, "portuguese": 23, "spanish": 6, "japanese": 10,
    "korean": 16, "french": 13, "russian": 21, "beijing_dialect": 26, "sichuan_dialect": 14,
}  # fmt: skip
"""Codec ids of the languages, counted from the first reserved id."""
SPEAKERS = {
    "serena": 1018, "vivian": 1017, "uncle_fu": 962, "ryan": 1013, "aiden": 813, "ono_anna": 825, "sohee": 816,
    "eric": 827, "dylan": 830,
}  # fmt: skip
"""Codec ids of the speakers, counted from the first reserved id."""
DIALECTS = {"eric": "sichuan_dialect", "dylan": "beijing_dialect"}


@dataclass(frozen=True)
class StackShape:
    """A stack of transformer layers."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int


@dataclass(frozen=True)
class CodecShape:
    """The codec decoder; samples per frame are the product of all ratios."""

    stack: StackShape = StackShape(hidden=32, layers=2, heads=4, kv_heads=4, head_dim=16, mlp=48)
    codebook_dim: int = 32
    latent: int = 40
    decoder_dim: int = 64
    window: int = 72
    rates: tuple[int, ...] = (8, 5, 4, 3)
    ratios: tuple[int, ...] = (2, 2)

    @property
    def samples_per_frame(self) -> int:
        product = 1
        for factor in (*self.rates, *self.ratios):
            product *= factor
        return product


@dataclass(frozen=True)
class EncoderShape:
    """The two encoders of a `base` checkpoint: the codec's, whose codebooks are `codebook_dim` wide, and the
    speaker's, whose blocks have `channels` each."""

    stack: StackShape = StackShape(hidden=32, layers=2, heads=4, kv_heads=4, head_dim=8, mlp=48)
    filters: int = 4
    residual_layers: int = 1
    codebook_dim: int = 16
    quantizers: int = 20
    ratios: tuple[int, ...] = (8, 6, 5, 4)
    channels: int = 16
    blocks: int = 3
    scale: int = 4
    squeezed: int = 8
    attention: int = 12


@dataclass(frozen=True)
class CheckpointShape:
    """What a random checkpoint looks like.

    `dtype` is that of `model.safetensors`; `ranks` cuts the text vocabulary down; `eos_scale` multiplies the row of the
    talker's head that ends speech: at 0 it never wins, around 2 it does so soon. Where `peak` is given, the decoder's
    last convolution is scaled until the loudest sample of random codes is that.
    """

    name: str
    model_type: str = "custom_voice"
    model_size: str = "0b6"
    talker: StackShape = StackShape(hidden=64, layers=3, heads=4, kv_heads=2, head_dim=32, mlp=128)
    predictor: StackShape = StackShape(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=32, mlp=128)
    codec: CodecShape = CodecShape()
    encoder: EncoderShape = EncoderShape()
    text_hidden: int = 48
    code_groups: int = 16
    codebook_size: int = 512
    max_positions: int = 4096
    speakers: tuple[str, ...] = tuple(SPEAKERS)
    languages: tuple[str, ...] = tuple(LANGUAGES)
    dtype: torch.dtype = torch.bfloat16
    shards: int = 1
    ranks: int = ALL_RANKS
    eos_scale: float = 0.0
    rope_theta: float = 1e6
    gains: Gains = field(default_factory=Gains)
    peak: float | None = None
    generation: dict[str, Any] = field(default_factory=dict)


_SMALL = CheckpointShape(name="0.6B-like")
_BRIEF: dict[str, Any] = {
    "code_groups": 6,
    "ranks": 768,
    "codec": CodecShape(
        stack=StackShape(hidden=32, layers=1, heads=4, kv_heads=4, head_dim=16, mlp=48),
        rates=(4, 3, 2),
        ratios=(2,),
    ),
}
"""Of shapes that differ from the one above in something else: each code of a frame is a step of the code predictor, the
whole vocabulary takes seconds to write, and the export of a codec decoder of the published depth twice as long as all
other stages."""
_BASE = CheckpointShape(
    name="Base",
    model_type="base",
    talker=StackShape(hidden=48, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=96),
    predictor=StackShape(hidden=48, layers=1, heads=4, kv_heads=2, head_dim=16, mlp=96),
    codec=CodecShape(rates=(24, 20)),
    text_hidden=40,
    code_groups=5,
    codebook_size=256,
    max_positions=2048,
    speakers=(),
    ranks=768,
    gains=Gains(residuals=8.0),
    peak=0.5,
)
SHAPES = {
    shape.name: shape
    for shape in (
        _SMALL,
        replace(
            _SMALL,
            name="1.7B-like",
            model_size="1b7",
            talker=StackShape(hidden=96, layers=3, heads=4, kv_heads=2, head_dim=32, mlp=160),
            shards=3,
            **_BRIEF,
        ),
        replace(_SMALL, name="VoiceDesign", model_type="voice_design", model_size="1b7", speakers=(), **_BRIEF),
        CheckpointShape(
            name="odd",
            model_size="1b7",
            talker=StackShape(hidden=80, layers=2, heads=6, kv_heads=3, head_dim=48, mlp=112),
            predictor=StackShape(hidden=72, layers=3, heads=5, kv_heads=1, head_dim=16, mlp=56),
            codec=CodecShape(
                stack=StackShape(hidden=24, layers=3, heads=3, kv_heads=3, head_dim=8, mlp=40),
                codebook_dim=24,
                latent=28,
                decoder_dim=48,
                window=10,
                rates=(6, 5, 4),
                ratios=(2, 2, 2),
            ),
            text_hidden=56,
            code_groups=8,
            codebook_size=300,
            ranks=768,
            dtype=torch.float32,
        ),
        # What tests convert most often.
        replace(_SMALL, name="short", **_BRIEF),
        # Of tests of the command itself, which convert it anew each time: one layer of each kind.
        CheckpointShape(
            name="least",
            talker=StackShape(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, mlp=48),
            predictor=StackShape(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, mlp=48),
            codec=CodecShape(
                stack=StackShape(hidden=16, layers=1, heads=2, kv_heads=2, head_dim=8, mlp=24),
                codebook_dim=16,
                latent=16,
                decoder_dim=16,
                rates=(4,),
                ratios=(2,),
            ),
            text_hidden=24,
            code_groups=3,
            codebook_size=64,
            ranks=768,
        ),
        CheckpointShape(
            name="tiny",
            talker=StackShape(hidden=48, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=96),
            predictor=StackShape(hidden=48, layers=1, heads=4, kv_heads=2, head_dim=16, mlp=96),
            text_hidden=64,
            codebook_size=256,
            max_positions=2048,
            speakers=("serena", "ryan", "eric"),
            languages=("english", "chinese", "sichuan_dialect"),
            ranks=768,
            eos_scale=1.3,
            generation={"max_new_tokens": 1024},
        ),
        _BASE,
        replace(
            _BASE,
            name="Base 1.7B-like",
            model_size="1b7",
            talker=StackShape(hidden=72, layers=3, heads=4, kv_heads=2, head_dim=32, mlp=96),
            encoder=EncoderShape(
                stack=StackShape(hidden=24, layers=3, heads=4, kv_heads=2, head_dim=6, mlp=40),
                filters=6,
                residual_layers=2,
                codebook_dim=24,
                channels=24,
                blocks=2,
                scale=3,
            ),
            code_groups=5,
            shards=2,
        ),
        replace(
            _BASE,
            name="Base odd",
            talker=StackShape(hidden=40, layers=2, heads=6, kv_heads=3, head_dim=24, mlp=56),
            predictor=StackShape(hidden=40, layers=1, heads=5, kv_heads=1, head_dim=16, mlp=56),
            codec=CodecShape(
                stack=StackShape(hidden=24, layers=1, heads=3, kv_heads=3, head_dim=8, mlp=40),
                codebook_dim=24,
                latent=28,
                decoder_dim=32,
                window=10,
                rates=(12, 10),
                ratios=(2, 2, 2),
            ),
            encoder=EncoderShape(
                stack=StackShape(hidden=20, layers=1, heads=2, kv_heads=1, head_dim=8, mlp=24),
                filters=2,
                codebook_dim=12,
                quantizers=8,
                ratios=(6, 5, 4, 4),
                channels=8,
                blocks=4,
                scale=2,
            ),
            code_groups=3,
            codebook_size=128,
            dtype=torch.float32,
        ),
        replace(
            _BASE,
            name="Base wide",
            codec=CodecShape(rates=(15, 4), ratios=(2, 2)),
            encoder=EncoderShape(
                stack=StackShape(hidden=16, layers=2, heads=2, kv_heads=2, head_dim=8, mlp=24),
                filters=3,
                codebook_dim=16,
                ratios=(5, 4, 6),
                channels=32,
                scale=8,
            ),
            code_groups=4,
            languages=("english", "chinese"),
        ),
    )
}


def _stack_config(shape: StackShape, **more: Any) -> dict[str, Any]:
    return {
        "attention_bias": False, "attention_dropout": 0, "hidden_act": "silu", "initializer_range": 0.02,
        "hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "intermediate_size": shape.mlp, **more,
    }  # fmt: skip


def _mrope_section(head_dim: int) -> list[int]:
    side = head_dim // 6
    return [head_dim // 2 - 2 * side, side, side]


def model_config(shape: CheckpointShape) -> dict[str, Any]:
    """`config.json`."""
    first, special = shape.codebook_size, vocabulary(shape.ranks).special
    common = {"rms_norm_eps": 1e-06, "rope_theta": shape.rope_theta, "use_cache": True,
              "num_code_groups": shape.code_groups, "sliding_window": None, "use_sliding_window": False}  # fmt: skip
    predictor = _stack_config(
        shape.predictor, **common, model_type="qwen3_tts_talker_code_predictor", vocab_size=shape.codebook_size,
        max_position_embeddings=65536, rope_scaling=None, layer_types=["full_attention"] * shape.predictor.layers,
    )  # fmt: skip
    talker = _stack_config(
        shape.talker, **common, model_type="qwen3_tts_talker", code_predictor_config=predictor,
        vocab_size=first + _RESERVED_IDS, text_vocab_size=max(special.values()) // 128 * 128 + 256,
        text_hidden_size=shape.text_hidden, max_position_embeddings=shape.max_positions, position_id_per_seconds=13,
        rope_scaling={"interleaved": True, "mrope_section": _mrope_section(shape.talker.head_dim),
                      "rope_type": "default", "type": "default"},
        codec_pad_id=first + 100, pad_token_id=first + 100, codec_bos_id=first + 101, codec_eos_token_id=first + 102,
        codec_think_id=first + 106, codec_nothink_id=first + 107, codec_think_bos_id=first + 108,
        codec_think_eos_id=first + 109,
        codec_language_id={name: first + LANGUAGES[name] for name in shape.languages},
        spk_id={name: first + SPEAKERS[name] for name in shape.speakers},
        spk_is_dialect={name: DIALECTS.get(name, False) for name in shape.speakers},
    )  # fmt: skip
    base = {"speaker_encoder_config": _speaker_config(shape)} if shape.model_type == "base" else {}
    return {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": shape.model_size,
        "tts_model_type": shape.model_type,
        "im_start_token_id": special["<|im_start|>"],
        "im_end_token_id": special["<|im_end|>"],
        "tts_pad_token_id": special["<tts_pad>"],
        "tts_bos_token_id": special["<tts_text_bos>"],
        "tts_eos_token_id": special["<tts_text_eod>"],
        "talker_config": talker,
        **base,
        "transformers_version": "4.57.3",
    }


def _speaker_config(shape: CheckpointShape) -> dict[str, Any]:
    encoder = shape.encoder
    return {
        "enc_dim": shape.talker.hidden,
        "enc_channels": [encoder.channels] * (1 + encoder.blocks) + [encoder.channels * encoder.blocks],
        "enc_kernel_sizes": [5, *[3] * encoder.blocks, 1],
        "enc_dilations": [1, *range(2, 2 + encoder.blocks), 1],
        "enc_attention_channels": encoder.attention,
        "enc_res2net_scale": encoder.scale,
        "enc_se_channels": encoder.squeezed,
        "sample_rate": 24000,
    }


def _encoder_config(shape: CheckpointShape) -> dict[str, Any]:
    """`encoder_config` of the codec: what its published one says beside the sizes."""
    encoder, stack = shape.encoder, shape.encoder.stack
    step = 2 * math.prod(encoder.ratios)
    return {
        "_frame_rate": 24000 / step, "attention_bias": False, "audio_channels": 1, "codebook_dim": encoder.codebook_dim,
        "codebook_size": shape.codebook_size, "compress": 2, "dilation_growth_rate": 2, "head_dim": stack.head_dim,
        "hidden_act": "gelu", "hidden_size": stack.hidden, "intermediate_size": stack.mlp, "kernel_size": 7,
        "last_kernel_size": 3, "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000, "norm_eps": 1e-05,
        "num_attention_heads": stack.heads, "num_filters": encoder.filters, "num_hidden_layers": stack.layers,
        "num_key_value_heads": stack.kv_heads, "num_quantizers": encoder.quantizers,
        "num_residual_layers": encoder.residual_layers, "num_semantic_quantizers": 1, "pad_mode": "constant",
        "residual_kernel_size": 3, "rope_theta": 10000.0, "sampling_rate": 24000, "sliding_window": 250,
        "trim_right_ratio": 1.0, "upsample_groups": stack.hidden, "upsampling_ratios": list(encoder.ratios),
        "use_cache": False, "use_causal_conv": True, "use_conv_shortcut": False, "use_streaming": False,
        "vector_quantization_hidden_dimension": encoder.codebook_dim,
    }  # fmt: skip


def codec_config(shape: CheckpointShape) -> dict[str, Any]:
    """`speech_tokenizer/config.json`; the encoder (Mimi) is present, and minute where no voice is cloned."""
    codec = shape.codec
    decoder = _stack_config(
        codec.stack, codebook_dim=codec.codebook_dim, codebook_size=shape.codebook_size, decoder_dim=codec.decoder_dim,
        latent_dim=codec.latent, layer_scale_initial_scale=0.01, max_position_embeddings=8000,
        num_quantizers=shape.code_groups, num_semantic_quantizers=1, rms_norm_eps=1e-05, rope_theta=10000,
        semantic_codebook_size=2 * shape.codebook_size, sliding_window=codec.window, upsample_rates=list(codec.rates),
        upsampling_ratios=list(codec.ratios), vector_quantization_hidden_dimension=codec.codebook_dim,
    )  # fmt: skip
    encoder = {
        "codebook_dim": 8, "codebook_size": 16, "hidden_size": 16, "head_dim": 4, "intermediate_size": 16,
        "num_attention_heads": 4, "num_key_value_heads": 4, "num_filters": 2, "num_hidden_layers": 1,
        "num_quantizers": 16, "upsample_groups": 16, "upsampling_ratios": [8, 6, 5, 4], "use_cache": False,
        "vector_quantization_hidden_dimension": 8, "sampling_rate": 24000, "sliding_window": 250,
    }  # fmt: skip
    if base := shape.model_type == "base":
        encoder = _encoder_config(shape)
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": shape.code_groups,
        "input_sample_rate": 24000,
        "output_sample_rate": 24000,
        "decode_upsample_rate": codec.samples_per_frame,
        "encode_downsample_rate": codec.samples_per_frame if base else 1920,
        "decoder_config": decoder,
        "encoder_config": encoder,
        "transformers_version": "4.57.3",
    }


_GENERATION = {
    "do_sample": True, "repetition_penalty": 1.05, "temperature": 0.9, "top_p": 1.0, "top_k": 50,
    "subtalker_dosample": True, "subtalker_temperature": 0.9, "subtalker_top_p": 1.0, "subtalker_top_k": 50,
    "max_new_tokens": 8192,
}  # fmt: skip
_PREPROCESSOR = {
    "chunk_length_s": None, "feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1, "overlap": None,
    "padding_side": "right", "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": 24000,
}  # fmt: skip


def save_sharded(tensors: dict[str, torch.Tensor], folder: Path, shards: int) -> None:
    """Write `model.safetensors`, or that many numbered shards and their index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")


def write_documents(folder: Path, shape: CheckpointShape) -> None:
    """Write everything but the weights."""
    documents = {
        "config.json": model_config(shape),
        "generation_config.json": _GENERATION | shape.generation,
        "speech_tokenizer/config.json": codec_config(shape),
        "speech_tokenizer/preprocessor_config.json": _PREPROCESSOR,
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2), "utf-8")
    vocabulary(shape.ranks).write(folder)


def build_checkpoint(folder: Path, shape: CheckpointShape, seed: int = 0) -> Path:
    """Write the whole checkpoint into `folder`, made anew, and return it."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "speech_tokenizer").mkdir(parents=True)
    weights, codec_weights = draw_weights(model_config(shape), codec_config(shape), seed, shape.eos_scale, shape.gains)
    if shape.peak is not None:
        scale_to_peak(codec_weights, codec_config(shape), shape.peak)
    save_sharded({name: value.to(shape.dtype) for name, value in weights.items()}, folder, shape.shards)
    save_file(codec_weights, folder / "speech_tokenizer" / "model.safetensors", metadata={"format": "pt"})
    write_documents(folder, shape)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a random checkpoint in the official layout.")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    build_checkpoint(arguments.folder, SHAPES[arguments.shape], arguments.seed)
