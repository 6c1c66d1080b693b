"""A Hub id or a folder, checked and opened: configuration, tensors, tokenizer files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.checkpoint_config import CODEC_FOLDER, read_configs
from export.hub import HubError, download
from export.weights import CheckpointError, Weights, read_json

__all__ = ["Checkpoint", "CheckpointError", "open_checkpoint"]

_TEXT_FILES = ("vocab.json", "merges.txt")
_CARD = "README.md"
_LICENSE = re.compile(r"\A---\s*\n(?:(?!---).*\n)*?license:[ \t]*([\w.-]+)")
"""Matches a card whose front matter, between two lines of hyphens, names a licence."""
_SMALL_FILES = (
    _CARD,
    "config.json",
    "generation_config.json",
    *_TEXT_FILES,
    "model.safetensors.index.json",
    f"{CODEC_FOLDER}/config.json",
    f"{CODEC_FOLDER}/model.safetensors.index.json",
)
_LARGE_FILES = ("model*.safetensors", f"{CODEC_FOLDER}/model*.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        folder: where its files lie.
        name: Hub id, or the folder's name.
        revision: commit on the Hub, None for a folder.
        config: `config.json`, checked, in the form that `read_configs` gives it.
        generation: `generation_config.json`, `{}` if there is none.
        codec_config: `speech_tokenizer/config.json`, the same.
        weights: tensors of talker and code predictor.
        codec_weights: tensors of the speech tokenizer.
        license: as its card names it, None where there is no card or no licence in it.
    """

    folder: Path
    name: str
    revision: str | None
    config: dict[str, Any]
    generation: dict[str, Any]
    codec_config: dict[str, Any]
    weights: Weights
    codec_weights: Weights
    license: str | None = None

    @property
    def clones(self) -> bool:
        """Whether it is a `base` checkpoint, which speaks with voices of recordings."""
        return bool(self.config["tts_model_type"] == "base")

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
        read_configs(small)
        folder = download(model, (*_SMALL_FILES, *_LARGE_FILES), revision)
    except HubError as error:
        raise CheckpointError(str(error)) from error
    return _open_folder(folder, model, folder.name)


def _open_folder(folder: Path, name: str, revision: str | None) -> Checkpoint:
    config, codec_config = read_configs(folder)
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
        license=_license(folder / _CARD),
    )


def _license(card: Path) -> str | None:
    found = _LICENSE.match(card.read_text("utf-8", errors="replace")) if card.is_file() else None
    return found[1] if found else None
