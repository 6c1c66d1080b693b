"""Compares names of models as clients write them, and says how to make a model that is missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from server.manifest import DEFAULT_PRECISION, Precision, is_device

OPENAI_MODELS = ("gpt-4o-mini-tts", "tts-1", "tts-1-hd")
"""OpenAI's names, which mean the default model, as Kokoro's name and Kokoro Web's names for its precisions do."""

_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
"""Of a Hub id; none ends in a dot or a hyphen."""
_HUB_BUNDLE = re.compile(rf"({_PART}/{_PART})(?:@(\w+))?", re.ASCII)
_BETWEEN = re.compile(r"[\s._-]+")
_DEFAULTS = re.compile(
    r"(?:default|none)?"
    r"|(?:openai/)?(?:tts_1|tts_1_hd|gpt_4o_mini_tts)(?:_\d{4}|_\d{4}_\d{2}_\d{2})?"  # OpenAI's snapshots have a date
    r"|model(?:_(?:fp16|quantized|q8f16|uint8|uint8f16|q4|q4f16))?"
    r"|(?:hexgrad/|onnx_community/)?kokoro(?:_82m)?(?:_v[0-9_]+)?(?:_onnx)?",
    re.ASCII,
)

_HUB_IDS = (
    "Qwen3-TTS-12Hz-0.6B-CustomVoice",
    "Qwen3-TTS-12Hz-1.7B-CustomVoice",
    "Qwen3-TTS-12Hz-1.7B-VoiceDesign",
    "Qwen3-TTS-12Hz-0.6B-Base",
    "Qwen3-TTS-12Hz-1.7B-Base",
)
"""Checkpoints on the Hub that can be converted."""
HOW_TO_CLONE = (
    "a Base model clones voices; to make one: "
    "qwen3-tts convert --model Qwen/Qwen3-TTS-12Hz-0.6B-Base --output models/qwen3_tts_0_6b_base"
)


def bundle_id(name: str, precision: Precision) -> str:
    """Return the id that a bundle of a checkpoint gets.

    `Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice` and `bf16` give `qwen3_tts_0_6b_customvoice_bf16`; the default precision adds
    nothing. It is a folder's name, so that it is none which Windows takes for a device: `me/con` gives `con_model`.
    """
    words = re.findall(r"[a-z0-9]+", name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower())
    model = "_".join(word for word in words if word != "12hz") or "model"
    if is_device(model):
        model += "_model"
    return model if precision == DEFAULT_PRECISION else f"{model}_{precision}"


@dataclass(frozen=True)
class HubBundle:
    """A ready bundle in a repository of the Hub."""

    repo: str
    """Its id, `owner/name`."""
    precision: Precision

    @property
    def id(self) -> str:
        """The name of its folder here."""
        return bundle_id(self.repo, self.precision)

    def __str__(self) -> str:
        return f"{self.repo}@{self.precision}"


def hub_bundle(name: str, precision: Precision | None = None) -> HubBundle | None:
    """Read `OWNER/NAME` or `OWNER/NAME@PRECISION`; None for any other name.

    Args:
        name: what a person has written.
        precision: where the name has none; None is the exporter's default.

    Raises:
        ValueError: there is no such precision.
    """
    found = _HUB_BUNDLE.fullmatch(name)
    if found is None:
        return None
    wanted = found[2] or precision or DEFAULT_PRECISION
    for known in get_args(Precision):
        if wanted == known:
            return HubBundle(found[1], known)
    raise ValueError(f"{name}: there is no precision {wanted}; there are {', '.join(get_args(Precision))}")


def normalised(name: str) -> str:
    """Return the spelling in which names are compared: without capitals, and with `_` between words."""
    return _BETWEEN.sub("_", name.strip().lower())


def means_default(name: str) -> bool:
    """Whether a name means the default model, whichever that is."""
    return bool(_DEFAULTS.fullmatch(normalised(name)))


def is_source(name: str, source: str) -> bool:
    """Whether a name is that of a bundle's checkpoint, such as a Hub id, with or without its owner."""
    wanted, checkpoint = normalised(name), normalised(source)
    return wanted in (checkpoint, checkpoint.rpartition("/")[2])


def how_to_make(name: str) -> str:
    """Return the command that makes the model of this name, or some model if no checkpoint is known by it."""
    wanted = normalised(name).rpartition("/")[2].replace("_12hz_", "_")
    for hub_id in _HUB_IDS:
        model = normalised(hub_id).replace("_12hz_", "_")
        rest = wanted.removeprefix(model)
        precision = rest.removeprefix("_")
        if wanted.startswith(model) and (not rest or precision in get_args(Precision)):
            option = f" --precision {precision}" if precision else ""
            return f"to make it: qwen3-tts convert --model Qwen/{hub_id}{option} --output models/{wanted}"
    return f"to make one: qwen3-tts convert --model Qwen/{_HUB_IDS[0]} --output models/NAME"
