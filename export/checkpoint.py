"""A Hub id or a folder, checked and opened: configuration, tensors, tokenizer files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.hub import HubError, download
from export.weights import CheckpointError, Weights, read_json

__all__ = ["CODEC_FOLDER", "Checkpoint", "CheckpointError", "model_id", "open_checkpoint"]

CODEC_FOLDER = "speech_tokenizer"
_TEXT_FILES = ("vocab.json", "merges.txt")
_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    *_TEXT_FILES,
    "model.safetensors.index.json",
    f"{CODEC_FOLDER}/config.json",
    f"{CODEC_FOLDER}/model.safetensors.index.json",
)
_LARGE_FILES = ("model*.safetensors", f"{CODEC_FOLDER}/model*.safetensors")
_MODEL_TYPE = "qwen3_tts"
_CODEC_TYPE = "qwen3_tts_tokenizer_12hz"

_STACK_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
               "rms_norm_eps", "rope_theta", "vocab_size")  # fmt: skip
_TALKER_KEYS = (
    *_STACK_KEYS, "max_position_embeddings", "num_code_groups", "text_hidden_size", "text_vocab_size", "codec_bos_id",
    "codec_eos_token_id", "codec_pad_id", "codec_think_id", "codec_nothink_id", "codec_think_bos_id",
    "codec_think_eos_id",
)  # fmt: skip
_TOP_KEYS = ("im_start_token_id", "im_end_token_id", "tts_pad_token_id", "tts_bos_token_id", "tts_eos_token_id")
_CODEC_KEYS = (
    "codebook_dim", "codebook_size", "decoder_dim", "head_dim", "hidden_size", "intermediate_size", "latent_dim",
    "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "num_quantizers", "rms_norm_eps", "rope_theta",
    "sliding_window",
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        folder: where its files lie.
        name: Hub id, or the folder's name.
        revision: commit on the Hub, None for a folder.
        config: `config.json`.
        generation: `generation_config.json`, `{}` if there is none.
        codec_config: `speech_tokenizer/config.json`.
        weights: tensors of talker and code predictor.
        codec_weights: tensors of the speech tokenizer.
    """

    folder: Path
    name: str
    revision: str | None
    config: dict[str, Any]
    generation: dict[str, Any]
    codec_config: dict[str, Any]
    weights: Weights
    codec_weights: Weights

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """One tensor of the talker's side, in its stored dtype.

        Raises:
            CheckpointError: it is missing or not of `shape`.
        """
        self.weights.check({name: shape})
        return self.weights.read(name)

    def check_module(self, module: nn.Module, prefix: str, *, codec: bool = False) -> None:
        """See that `load_into` would find every tensor, in its shape, without reading any.

        Raises:
            CheckpointError: naming tensors that are missing or of the wrong shape.
        """
        weights = self.codec_weights if codec else self.weights
        weights.check({prefix + name: tuple(value.shape) for name, value in module.state_dict().items()})

    def load_into(self, module: nn.Module, prefix: str, *, codec: bool = False) -> None:
        """Give every parameter and persistent buffer of `module` the tensor of its name below `prefix`, in float32.

        Args:
            module: may be on the meta device.
            prefix: put before the module's own names.
            codec: read from the speech tokenizer's file.

        Raises:
            CheckpointError: naming tensors that are missing or of the wrong shape.
        """
        self.check_module(module, prefix, codec=codec)
        weights = self.codec_weights if codec else self.weights
        values = {name: weights.read(prefix + name).to(torch.float32) for name in module.state_dict()}
        module.load_state_dict(values, assign=True)
        module.requires_grad_(False)


def model_id(name: str) -> str:
    """A bundle's id: `Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice` gives `qwen3_tts_0_6b_customvoice`."""
    words = re.findall(r"[a-z0-9]+", name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower())
    return "_".join(word for word in words if word != "12hz") or "model"


def open_checkpoint(model: str, *, revision: str | None = None) -> Checkpoint:
    """Open a folder, or fetch a Hub id (small files first, so that a wrong model is refused before its weights come).

    Raises:
        CheckpointError: with what is wrong and what to do: no Hub access, not a Qwen3-TTS checkpoint, a kind that is
            not supported, a missing or truncated file, a configuration that lacks a value.
    """
    folder = Path(model).expanduser()
    if folder.exists() or model.startswith((".", "/", "~")):
        if not folder.is_dir():
            raise CheckpointError(f"{model} is not a folder" if folder.exists() else f"there is no folder {model}")
        if revision is not None:
            raise CheckpointError("a revision belongs to a Hub id, not to a folder")
        return _open_folder(folder.resolve(), folder.resolve().name, None)
    try:
        small = download(model, _SMALL_FILES, revision)
        _check_configs(small)
        folder = download(model, (*_SMALL_FILES, *_LARGE_FILES), revision)
    except HubError as error:
        raise CheckpointError(str(error)) from error
    return _open_folder(folder, model, folder.name)


def _open_folder(folder: Path, name: str, revision: str | None) -> Checkpoint:
    config, codec_config = _check_configs(folder)
    for file in _TEXT_FILES:
        if not (folder / file).is_file():
            raise CheckpointError(f"{file} is missing in {folder}")
    return Checkpoint(
        folder=folder,
        name=name,
        revision=revision,
        config=config,
        generation=read_json(folder, "generation_config.json", optional=True),
        codec_config=codec_config,
        weights=Weights(folder),
        codec_weights=Weights(folder / CODEC_FOLDER),
    )


def _check_configs(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    config = read_json(folder, "config.json")
    if config.get("model_type") != _MODEL_TYPE:
        raise CheckpointError(
            f"{folder} is not a Qwen3-TTS checkpoint: config.json says model_type {config.get('model_type')!r}, "
            f"expected {_MODEL_TYPE!r}"
        )
    kind = config.get("tts_model_type")
    if kind == "base":
        raise CheckpointError(
            "base checkpoints (voice cloning) are not supported yet; convert a CustomVoice or VoiceDesign checkpoint"
        )
    if kind not in ("custom_voice", "voice_design"):
        raise CheckpointError(f"config.json: tts_model_type {kind!r} is unknown; expected custom_voice or voice_design")
    if config.get("tokenizer_type") != _CODEC_TYPE:
        raise CheckpointError(
            f"the speech tokenizer {config.get('tokenizer_type')!r} is not supported; only {_CODEC_TYPE!r} (12 Hz) is"
        )
    codec = read_json(folder, f"{CODEC_FOLDER}/config.json")
    if codec.get("model_type") != _CODEC_TYPE:
        raise CheckpointError(
            f"{CODEC_FOLDER}/config.json says model_type {codec.get('model_type')!r}; only {_CODEC_TYPE!r} is supported"
        )
    _check_values(config, codec)
    return config, codec


def _section(parent: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    section = parent.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"{where} has no {name}")
    return section


def _check_values(config: dict[str, Any], codec: dict[str, Any]) -> None:
    talker = _section(config, "talker_config", "config.json")
    predictor = _section(talker, "code_predictor_config", "config.json: talker_config")
    decoder = _section(codec, "decoder_config", f"{CODEC_FOLDER}/config.json")
    parts = (
        ("config.json", config, _TOP_KEYS),
        ("config.json: talker_config", talker, _TALKER_KEYS),
        ("config.json: code_predictor_config", predictor, _STACK_KEYS),
        (f"{CODEC_FOLDER}/config.json", codec, ("output_sample_rate", "decode_upsample_rate")),
        (f"{CODEC_FOLDER}/config.json: decoder_config", decoder, _CODEC_KEYS),
    )
    for name in ("upsample_rates", "upsampling_ratios"):
        factors = decoder.get(name)
        if not isinstance(factors, list) or not all(isinstance(f, int) and f > 0 for f in factors):
            raise CheckpointError(f"{CODEC_FOLDER}/config.json: decoder_config has no usable {name}")
    for where, section, keys in parts:
        for key in keys:
            if not isinstance(section.get(key), int | float) or section[key] < 0:
                raise CheckpointError(f"{where}: {key} is {section.get(key)!r}, expected a number")
    for name in ("spk_id", "codec_language_id"):
        _section(talker, name, "config.json: talker_config")
    for where, section, _ in (parts[1], parts[2], parts[4]):
        _check_layers(where, section)
    if decoder["num_quantizers"] != talker["num_code_groups"] or decoder["codebook_size"] < predictor["vocab_size"]:
        raise CheckpointError(
            f"{CODEC_FOLDER}/config.json has {decoder['num_quantizers']} codebooks of {decoder['codebook_size']} "
            f"codes, config.json asks for {talker['num_code_groups']} of {predictor['vocab_size']}"
        )


def _check_layers(where: str, section: dict[str, Any]) -> None:
    """Refuse what the graphs do not compute rather than compute something else."""
    rope = section.get("rope_scaling") or {}
    refused = {
        "hidden_act": section.get("hidden_act", "silu") != "silu",
        "rope_scaling": rope.get("rope_type", rope.get("type", "default")) != "default",
        "use_sliding_window": bool(section.get("use_sliding_window")),
        "num_key_value_heads": section["num_attention_heads"] % max(section["num_key_value_heads"], 1) != 0,
    }
    for key, bad in refused.items():
        if bad:
            raise CheckpointError(f"{where}: {key} {section[key]!r} is not supported")
