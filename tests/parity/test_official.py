"""Greedy codes equal the official package's, code for code, and the waveform follows within 1e-4 of its peak."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from server.engine.bundle import OpenBundle
from server.engine.job import Job, Sampling
from server.engine.prompt import Layout
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.graphs.codec_decoder import CodecDecoder, CodecState
from tests.closeness import assert_close
from tests.oracle import Choices, Spoken, assert_official, load_official, official_waveform

FRAMES = 8
"""What is wrong in a prompt shows in the first one."""
LONGER = {"english": 24, "long": 24}
GREEDY = Sampling(0.0, 50, 1.0, 1.05, 0.0, 50, 1.0)
LONG = "The quick brown fox jumps over the lazy dog, again and again; then it rests, and so do we. " * 5
TEXTS = {
    "english": Spoken("Hello there, how are you today?", "ryan", "English"),
    "chinese": Spoken("今天天气怎么样？我们去公园吧。", "vivian", "Chinese"),
    "dialect": Spoken("巴适得板，要得。", "Eric", "auto"),
    "letter": Spoken("A", "serena", "auto"),
    "long": Spoken(LONG[:400], "Aiden", "english"),
}
INSTRUCTION = "Speak very slowly, with a sad voice."
SHAPES = ("0.6B-like", "1.7B-like", "VoiceDesign", "odd")
WAVEFORM = 1e-4
"""Part of its peak by which a waveform may differ: snake activations multiply the rounding of what they are given."""


class RecordingDecoder:
    """A codec decoder that keeps the codes it is given."""

    def __init__(self, decoder: CodecDecoder) -> None:
        self._decoder = decoder
        self.codes: list[np.ndarray] = []

    def start(self) -> CodecState:
        return self._decoder.start()

    def decode(self, codes, states):
        self.codes.append(codes[0])
        return self._decoder.decode(codes, states)


def speak(bundle: OpenBundle, job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[frames, groups]` and samples of one job, without the engine's thread."""
    decoder = RecordingDecoder(bundle.codec_decoder)
    synthesizer = Synthesizer(dataclasses.replace(bundle, codec_decoder=decoder))
    row = synthesizer.start(job, 0)
    while not row.finished:
        synthesizer.frame([row])
    job.finish()
    return np.concatenate(decoder.codes), np.concatenate(list(job))


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, checkpoint_of: Callable[[str], Path], bundle_of: Callable[[str], Path]) -> tuple[Path, OpenBundle]:
    bundle = open_bundle(bundle_of(request.param), provider="cpu", threads=1, slots=1)
    return checkpoint_of(request.param), bundle


@cache
def expected_of(folder: Path, layout: Layout) -> dict[str, Choices]:
    """What the official package says of every text, all in one batch."""
    whole, frames = layout == "whole", max(LONGER.values())
    found = load_official(folder).choices_together(
        list(TEXTS.values()), instruction=INSTRUCTION, frames=frames, non_streaming_mode=whole
    )
    return dict(zip(TEXTS, found, strict=True))


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("case", TEXTS)
def test_codes_and_waveform_are_the_official_ones(pair: tuple[Path, OpenBundle], case: str, layout: Layout) -> None:
    folder, bundle = pair
    text, speaker, language = TEXTS[case]
    voice = speaker if bundle.manifest.speakers else None
    frames = LONGER.get(case, FRAMES)
    expected = Choices(*(part[:frames] for part in expected_of(folder, layout)[case]))
    assert expected.codes.shape == (frames, bundle.manifest.sizes.code_predictor.num_code_groups)
    assert len(np.unique(expected.codes)) > frames, "a constant answer would prove nothing"

    # The official package takes names in any case; prompts take the manifest's own.
    own = {"speaker": voice and voice.lower(), "language": language.lower()}
    prompt = bundle.prompts.build(text, **own, instruction=INSTRUCTION, layout=layout)
    codes, samples = speak(bundle, Job(prompt, GREEDY, seed=1, max_frames=frames))

    assert_official(codes, expected)
    assert samples.dtype == np.float32
    assert_close(samples, official_waveform(folder, codes), WAVEFORM)
