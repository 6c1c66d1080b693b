"""What a manifest says of a checkpoint in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from export.checkpoint import open_checkpoint
from export.publish import description_of
from server.manifest import read_manifest
from tests.bundles import TINY_BUNDLE
from tests.checkpoints import SHAPES, CheckpointShape, build_checkpoint

TINY = SHAPES["tiny"]
DIALECT = "sichuan_dialect"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (replace(TINY, speakers=("ryan",), languages=("english",)), "Qwen3-TTS CustomVoice: 1 speaker, 1 language."),
        (TINY, "Qwen3-TTS CustomVoice: 3 speakers, 2 languages and 1 dialect."),
        (
            replace(TINY, model_size="1b7", speakers=("eric",), languages=(DIALECT,)),
            "Qwen3-TTS CustomVoice: 1 speaker, style by instruction, 1 dialect.",
        ),
        (
            replace(TINY, model_type="voice_design", speakers=(), languages=("english", "german")),
            "Qwen3-TTS VoiceDesign: voices from a description, 2 languages.",
        ),
        (replace(TINY, speakers=("ryan",), languages=()), "Qwen3-TTS CustomVoice: 1 speaker."),
    ],
)
def test_counts_are_in_words(tmp_path: Path, shape: CheckpointShape, expected: str) -> None:
    assert description_of(open_checkpoint(str(build_checkpoint(tmp_path / "checkpoint", shape)))) == expected


def test_a_size_is_claimed_by_the_published_ones_alone(tmp_path: Path) -> None:
    shape = replace(TINY, talker=replace(TINY.talker, hidden=1024, layers=1, mlp=8))
    checkpoint = open_checkpoint(str(build_checkpoint(tmp_path / "checkpoint", shape)))
    assert description_of(checkpoint).startswith("Qwen3-TTS 0.6B CustomVoice: 3 speakers")


def test_the_embedded_model_says_what_it_is() -> None:
    description = read_manifest(TINY_BUNDLE).description
    assert "trained from nothing for this repository" in description
    assert "0.6B" not in description
