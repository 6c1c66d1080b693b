"""Sizes and ids of the tiny model: the official configuration documents, and the official classes made from them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PretrainedConfig
from transformers.utils import logging

from tests import checkpoints
from tests.checkpoints import CheckpointShape, CodecShape, StackShape, codec_config
from tests.oracle import official_package

CODEBOOKS = 8
CODEBOOK_SIZE = 512
LATENT = 256
SHAPE = CheckpointShape(
    name="qwen3_tts_tiny",
    talker=StackShape(hidden=256, layers=6, heads=4, kv_heads=2, head_dim=64, mlp=768),
    predictor=StackShape(hidden=256, layers=2, heads=4, kv_heads=2, head_dim=64, mlp=640),
    codec=CodecShape(
        stack=StackShape(hidden=256, layers=3, heads=4, kv_heads=4, head_dim=64, mlp=512),
        codebook_dim=128,
        latent=LATENT,
        decoder_dim=256,
    ),
    text_hidden=256,
    code_groups=CODEBOOKS,
    codebook_size=CODEBOOK_SIZE,
    max_positions=2048,
    speakers=(),
    languages=("english",),
    ranks=768,
    generation={
        "repetition_penalty": 1.0, "temperature": 0.6, "top_k": 20, "subtalker_temperature": 0.2, "subtalker_top_k": 20,
        "max_new_tokens": 1024,
    },
)  # fmt: skip
"""As the tests' random checkpoints; their text vocabulary and speakers give way to this model's own."""
SPEAKER, SPEAKER_ID = "hibari", CODEBOOK_SIZE + 900
_TALKER = checkpoints.model_config(SHAPE)["talker_config"]
CODEC_IDS: dict[str, int] = {
    name: _TALKER[name] for name in _TALKER if name.startswith("codec_") and "language" not in name
}
LANGUAGE_ID: int = _TALKER["codec_language_id"]["english"]


def model_config(special: dict[str, int]) -> dict[str, Any]:
    """`config.json`.

    Args:
        special: ids of the text tokenizer's special tokens.
    """
    config = checkpoints.model_config(SHAPE)
    config["talker_config"] |= {
        "text_vocab_size": (max(special.values()) + 64) // 64 * 64,
        "spk_id": {SPEAKER: SPEAKER_ID},
        "spk_is_dialect": {SPEAKER: False},
    }
    return config | {
        "im_start_token_id": special["<|im_start|>"],
        "im_end_token_id": special["<|im_end|>"],
        "tts_pad_token_id": special["<tts_pad>"],
        "tts_bos_token_id": special["<tts_text_bos>"],
        "tts_eos_token_id": special["<tts_text_eod>"],
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

    config = Qwen3TTSTokenizerV2Config(**copy.deepcopy(codec_config(SHAPE)))
    return _quietly(lambda: Qwen3TTSTokenizerV2Decoder._from_config(config.decoder_config))


def empty_talker(special: dict[str, int]) -> nn.Module:
    """The official talker with its code predictor."""
    official_package()
    from qwen_tts.core.models import Qwen3TTSConfig
    from qwen_tts.core.models.modeling_qwen3_tts import Qwen3TTSTalkerForConditionalGeneration

    config: PretrainedConfig = _quietly(lambda: Qwen3TTSConfig(**copy.deepcopy(model_config(special))))
    return _quietly(lambda: Qwen3TTSTalkerForConditionalGeneration._from_config(config.talker_config))


def codebook(level: int) -> str:
    """Where the vectors of a codebook are, within the codec decoder."""
    part = "rvq_first.vq.layers.0" if level == 0 else f"rvq_rest.vq.layers.{level - 1}"
    return f"quantizer.{part}._codebook"


def write_documents(folder: Path, special: dict[str, int]) -> None:
    """Write a checkpoint's JSON files; those of the tokenizer are a random checkpoint's and have to be replaced."""
    checkpoints.write_documents(folder, SHAPE)
    (folder / "config.json").write_text(json.dumps(model_config(special), indent=2) + "\n", "utf-8")
