"""Sizes of further random checkpoints, drawn by a seed, and how far their conversions are from the official package.

`python -m benchmarks.random_checkpoints --seeds 100 120` does as many as one likes.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from export.checkpoint_config import CODEC_FOLDER
from export.convert import main as convert
from export.graphs.validation import relative_error
from server.engine.job import Job
from server.engine.provider import open_bundle
from tests.checkpoints import (
    DIALECTS,
    LANGUAGES,
    SPEAKERS,
    CheckpointShape,
    CodecShape,
    StackShape,
    build_checkpoint,
)
from tests.oracle import Choices, Official, one_thread
from tests.parity.test_official import GREEDY, speak
from tests.random_weights import Gains

FRAMES = 12
TEXT = "Seven ferries left for the island at noon."
INSTRUCTION = "Speak slowly."
RANKS = 512
"""Of the text vocabulary, whose table would take most of the time."""

REPORTED = CheckpointShape(
    name="reported",
    talker=StackShape(hidden=320, layers=4, heads=5, kv_heads=1, head_dim=64, mlp=640),
    predictor=StackShape(hidden=320, layers=1, heads=5, kv_heads=1, head_dim=64, mlp=320),
    codec=CodecShape(decoder_dim=128),
    gains=Gains(blocks=1.0),
    peak=0.5,
    ranks=RANKS,
)
"""Its codec decoder's states reach several hundred, so that float32 is off by more than 0.001 in them, and right."""

_Value = TypeVar("_Value")


def random_shape(seed: int) -> CheckpointShape:
    """A small checkpoint whose every size is drawn; the same seed gives the same one."""
    random = np.random.default_rng(seed)

    def one_of(*values: _Value) -> _Value:
        return values[int(random.integers(len(values)))]

    def stack(layers: int, head_dims: tuple[int, ...]) -> StackShape:
        kv_heads = one_of(1, 2, 3)
        return StackShape(
            hidden=8 * int(random.integers(3, 15)),
            layers=int(random.integers(1, layers + 1)),
            heads=kv_heads * one_of(1, 2, 3),
            kv_heads=kv_heads,
            head_dim=one_of(*head_dims),
            mlp=8 * int(random.integers(3, 20)),
        )

    talker, predictor = stack(3, (16, 24, 40, 64)), stack(2, (8, 16, 40))
    if one_of(True, False):  # otherwise a projection lies between the two
        predictor = replace(predictor, hidden=talker.hidden)
    rates = one_of((8, 5, 4, 3), (6, 5, 4), (4, 4), (7,), (3, 2, 2))
    kind = one_of("custom_voice", "custom_voice", "voice_design")
    speakers = tuple(random.permutation(list(SPEAKERS))[: random.integers(1, 9)].tolist())
    languages = random.permutation(list(LANGUAGES))[: random.integers(1, 9)].tolist()
    languages += [DIALECTS[name] for name in speakers if name in DIALECTS and DIALECTS[name] not in languages]
    return CheckpointShape(
        name=f"seed {seed}",
        model_type=kind,
        model_size=one_of("0b6", "1b7"),
        talker=talker,
        predictor=predictor,
        codec=CodecShape(
            stack=stack(2, (8, 12, 18)),
            codebook_dim=2 * int(random.integers(6, 24)),
            latent=4 * int(random.integers(4, 14)),
            decoder_dim=2 ** len(rates) * int(random.integers(2, 6)),
            window=int(random.integers(3, 40)),
            rates=rates,
            ratios=one_of((2, 2), (2,), (3, 2)),
        ),
        text_hidden=8 * int(random.integers(3, 12)),
        code_groups=int(random.integers(2, 13)),
        codebook_size=int(random.integers(40, 500)),
        max_positions=int(random.integers(200, 3000)),
        speakers=speakers if kind == "custom_voice" else (),
        languages=tuple(languages),
        dtype=one_of(torch.bfloat16, torch.float32),
        shards=one_of(1, 2, 5),
        rope_theta=one_of(1e4, 5e5, 1e6),
        gains=Gains(blocks=one_of(0.5, 0.7, 1.0), residuals=one_of(1.0, 8.0, 64.0)),
        peak=0.5,
        ranks=RANKS,
    )


def as_transformers_5(source: Path, folder: Path) -> Path:
    """A checkpoint as newer tools write it, in a new `folder`: the same weights, other spellings in its documents.

    `rope_theta` and `rope_scaling` stand in `rope_parameters`, and speakers' ids are lists of one.
    """
    shutil.copytree(source, folder)
    for name in ("config.json", f"{CODEC_FOLDER}/config.json"):
        document = json.loads((folder / name).read_text("utf-8"))
        talker = document.get("talker_config", {})
        sections = [talker, talker.get("code_predictor_config", {}), document.get("decoder_config", {})]
        for section in filter(None, sections):
            rope = {"rope_type": "default", "rope_theta": section.pop("rope_theta")}
            section["rope_parameters"] = rope | (section.pop("rope_scaling", None) or {})
        if talker:
            talker["spk_id"] = {speaker: [number] for speaker, number in talker["spk_id"].items()}
        (folder / name).write_text(json.dumps(document | {"transformers_version": "5.0.0"}, indent=2), "utf-8")
    return folder


@dataclass(frozen=True)
class Agreement:
    """A conversion beside the official package.

    Attributes:
        codes: ours, greedy, int64 `[frames, groups]`.
        official: the official package's.
        waveform: largest difference of the samples of our codes, as a part of the loudest.
        loudest: of the official samples, 1 being full scale.
        seconds: wall time of building, converting and speaking.
    """

    codes: np.ndarray
    official: Choices
    waveform: float
    loudest: float
    seconds: float


def compare(shape: CheckpointShape, folder: Path, *, newer: bool, seed: int = 0) -> Agreement:
    """Build a checkpoint, convert it at fp32, and speak one sentence with both.

    Args:
        shape: of the checkpoint.
        folder: where to work.
        newer: convert the checkpoint as transformers 5 writes it; the official package reads the older form.
        seed: of the weights.

    Raises:
        RuntimeError: the conversion failed; it has said why.
    """
    started = time.monotonic()
    checkpoint = source = build_checkpoint(folder / "checkpoint", shape, seed)
    if newer:
        source = as_transformers_5(checkpoint, folder / "newer")
    with one_thread():
        options = ["--model", str(source), "--output", str(folder / "bundle"), "--precision", "fp32"]
        if convert(options) != 0:
            raise RuntimeError(f"{shape.name} could not be converted")
        official = Official(checkpoint)
        speaker = next(iter(shape.speakers), None)
        language = next((name for name in shape.languages if name not in DIALECTS.values()), "auto")
        given = {"speaker": speaker, "language": language, "instruction": INSTRUCTION}
        expected = official.choices(TEXT, frames=FRAMES, **given)
        bundle = open_bundle(folder / "bundle", provider="cpu", threads=1, slots=1)
        prompt = bundle.prompts.build(TEXT, **given)
        codes, samples = speak(bundle, Job(prompt, GREEDY, seed=1, max_frames=FRAMES))
        wanted = official.waveform(codes)
    return Agreement(
        codes=codes,
        official=expected,
        waveform=relative_error(samples, wanted),
        loudest=float(np.abs(wanted).max()),
        seconds=time.monotonic() - started,
    )
