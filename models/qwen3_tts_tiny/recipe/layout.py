"""Sizes and ids of the tiny model: the official configuration documents, and the official classes made from them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PretrainedConfig
from transformers.utils import logging

from tests.oracle import official_package

SPEAKER = "hibari"
LANGUAGE = "english"
CODEBOOKS = 8
CODEBOOK_SIZE = 512
LATENT = 256
_RESERVED = 1024  # the official package never samples the last 1024 ids of the talker's vocabulary, EOS excepted
_FIRST = CODEBOOK_SIZE

CODEC_IDS = {
    "codec_pad_id": _FIRST + 100, "codec_bos_id": _FIRST + 101, "codec_eos_token_id": _FIRST + 102,
    "codec_think_id": _FIRST + 106, "codec_nothink_id": _FIRST + 107, "codec_think_bos_id": _FIRST + 108,
    "codec_think_eos_id": _FIRST + 109,
}  # fmt: skip
LANGUAGE_ID = _FIRST + 2
SPEAKER_ID = _FIRST + 900
GENERATION = {
    "do_sample": True, "repetition_penalty": 1.0, "temperature": 0.6, "top_p": 1.0, "top_k": 20,
    "subtalker_dosample": True, "subtalker_temperature": 0.6, "subtalker_top_p": 1.0, "subtalker_top_k": 20,
    "max_new_tokens": 1024,
}  # fmt: skip


def _stack(hidden: int, layers: int, heads: int, kv_heads: int, head_dim: int, mlp: int, **more: Any) -> dict[str, Any]:
    return {
        "attention_bias": False, "attention_dropout": 0, "hidden_act": "silu", "initializer_range": 0.02,
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim, "intermediate_size": mlp, **more,
    }  # fmt: skip


def codec_config() -> dict[str, Any]:
    """`speech_tokenizer/config.json`; the encoder (Mimi) is minute and untrained: CustomVoice never encodes."""
    decoder = _stack(
        256, 3, 4, 4, 64, 512, codebook_dim=128, codebook_size=CODEBOOK_SIZE, decoder_dim=256, latent_dim=LATENT,
        layer_scale_initial_scale=0.01, max_position_embeddings=8000, num_quantizers=CODEBOOKS,
        num_semantic_quantizers=1, rms_norm_eps=1e-05, rope_theta=10000, semantic_codebook_size=2 * CODEBOOK_SIZE,
        sliding_window=72, upsample_rates=[8, 5, 4, 3], upsampling_ratios=[2, 2],
        vector_quantization_hidden_dimension=128,
    )  # fmt: skip
    encoder = {
        "codebook_dim": 8, "codebook_size": 16, "hidden_size": 16, "head_dim": 4, "intermediate_size": 16,
        "num_attention_heads": 4, "num_key_value_heads": 4, "num_filters": 2, "num_hidden_layers": 1,
        "num_quantizers": 16, "upsample_groups": 16, "upsampling_ratios": [8, 6, 5, 4], "use_cache": False,
        "vector_quantization_hidden_dimension": 8, "sampling_rate": 24000, "sliding_window": 250,
    }  # fmt: skip
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": CODEBOOKS,
        "input_sample_rate": 24000,
        "output_sample_rate": 24000,
        "decode_upsample_rate": 1920,
        "encode_downsample_rate": 1920,
        "decoder_config": decoder,
        "encoder_config": encoder,
        "transformers_version": "4.57.3",
    }


def model_config(special: dict[str, int]) -> dict[str, Any]:
    """`config.json`.

    Args:
        special: ids of the text tokenizer's special tokens.
    """
    common = {"rms_norm_eps": 1e-06, "rope_theta": 1000000, "use_cache": True, "num_code_groups": CODEBOOKS,
              "sliding_window": None, "use_sliding_window": False}  # fmt: skip
    predictor = _stack(
        256, 2, 4, 2, 64, 640, **common, model_type="qwen3_tts_talker_code_predictor", vocab_size=CODEBOOK_SIZE,
        max_position_embeddings=65536, rope_scaling=None, layer_types=["full_attention"] * 2,
    )  # fmt: skip
    talker = _stack(
        256, 6, 4, 2, 64, 768, **common, model_type="qwen3_tts_talker", code_predictor_config=predictor,
        vocab_size=_FIRST + _RESERVED, text_vocab_size=(max(special.values()) + 64) // 64 * 64, text_hidden_size=256,
        max_position_embeddings=2048, position_id_per_seconds=13,
        rope_scaling={"interleaved": True, "mrope_section": [12, 10, 10], "rope_type": "default", "type": "default"},
        pad_token_id=CODEC_IDS["codec_pad_id"], codec_language_id={LANGUAGE: LANGUAGE_ID},
        spk_id={SPEAKER: SPEAKER_ID}, spk_is_dialect={SPEAKER: False}, **CODEC_IDS,
    )  # fmt: skip
    return {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": "0b6",
        "tts_model_type": "custom_voice",
        "im_start_token_id": special["<|im_start|>"],
        "im_end_token_id": special["<|im_end|>"],
        "tts_pad_token_id": special["<tts_pad>"],
        "tts_bos_token_id": special["<tts_text_bos>"],
        "tts_eos_token_id": special["<tts_text_eod>"],
        "talker_config": talker,
        "transformers_version": "4.57.3",
    }


def _quietly(make: Any) -> Any:
    previous = logging.get_verbosity()
    logging.set_verbosity(50)  # the classes warn of unset defaults that the documents do set
    try:
        return make()
    finally:
        logging.set_verbosity(previous)


def empty_decoder() -> nn.Module:
    """The official codec decoder, codes `[batch, CODEBOOKS, frames]` to audio `[batch, 1, samples]`."""
    official_package()
    from qwen_tts.core import Qwen3TTSTokenizerV2Config
    from qwen_tts.core.tokenizer_12hz.modeling_qwen3_tts_tokenizer_v2 import Qwen3TTSTokenizerV2Decoder

    config = Qwen3TTSTokenizerV2Config(**copy.deepcopy(codec_config()))
    return _quietly(lambda: Qwen3TTSTokenizerV2Decoder._from_config(config.decoder_config))


def empty_talker(special: dict[str, int]) -> nn.Module:
    """The official talker with its code predictor."""
    official_package()
    from qwen_tts.core.models import Qwen3TTSConfig
    from qwen_tts.core.models.modeling_qwen3_tts import Qwen3TTSTalkerForConditionalGeneration

    config: PretrainedConfig = _quietly(lambda: Qwen3TTSConfig(**copy.deepcopy(model_config(special))))
    return _quietly(lambda: Qwen3TTSTalkerForConditionalGeneration._from_config(config.talker_config))


def write_documents(folder: Path, special: dict[str, int]) -> None:
    """Write a checkpoint's JSON files but the tokenizer's."""
    documents = {
        "config.json": model_config(special),
        "generation_config.json": GENERATION,
        "speech_tokenizer/config.json": codec_config(),
        "speech_tokenizer/preprocessor_config.json": {
            "chunk_length_s": None, "feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1,
            "overlap": None, "padding_side": "right", "padding_value": 0.0, "return_attention_mask": True,
            "sampling_rate": 24000,
        },
    }  # fmt: skip
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", "utf-8")
