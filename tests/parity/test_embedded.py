"""The embedded model's checkpoint is an official one: the official package says the same with it, code for code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.calibration import spoken_codes
from server.engine.bundle import OpenBundle
from server.engine.job import Job
from server.engine.provider import open_bundle
from server.manifest import CODEC_TABLE, TEXT_TABLE
from tests import conversions
from tests.bundles import TINY_BUNDLE
from tests.closeness import assert_close
from tests.oracle import Choices, Spoken, assert_official, load_official, official_waveform, one_thread
from tests.parity.test_official import GREEDY, WAVEFORM, speak

CHECKPOINT = TINY_BUNDLE / "checkpoint"
FRAMES = 60
TEXTS = ("The quick brown fox jumps over the lazy dog.", "What time is it?", "7")
LARGEST = {TINY_BUNDLE: 25_000_000, CHECKPOINT: 30_000_000}
"""Bytes that each may take."""


@pytest.fixture(scope="module")
def converted() -> Path:
    """The checkpoint as an fp32 bundle."""
    return conversions.converted(CHECKPOINT, TINY_BUNDLE.name, "fp32").bundle


@pytest.fixture(scope="module")
def exact(converted: Path) -> OpenBundle:
    """That bundle, opened."""
    return open_bundle(converted, provider="cpu", threads=1, slots=1)


@pytest.fixture(scope="module")
def expected() -> dict[str, Choices]:
    """What the official package says of each text, all in one batch."""
    spoken = [Spoken(text, "hibari", "English") for text in TEXTS]
    official = load_official(CHECKPOINT)
    return dict(
        zip(
            TEXTS,
            official.choices_together(spoken, instruction="", frames=FRAMES, non_streaming_mode=True),
            strict=True,
        )
    )


@pytest.mark.parametrize("text", TEXTS)
def test_greedy_codes_are_the_official_ones(exact: OpenBundle, expected: dict[str, Choices], text: str) -> None:
    prompt = exact.prompts.build(text, speaker="hibari", language="english", instruction=None)
    # The official package takes the penalty from the checkpoint, which has its own.
    greedy = replace(GREEDY, repetition_penalty=exact.manifest.generation.repetition_penalty)
    codes, samples = speak(exact, Job(prompt, greedy, seed=1, max_frames=FRAMES))
    assert_official(codes, expected[text])
    assert_close(samples, official_waveform(CHECKPOINT, codes), WAVEFORM)


def test_the_bundle_is_this_checkpoint_converted(converted: Path) -> None:
    committed, fresh = (json.loads((folder / "manifest.json").read_text()) for folder in (TINY_BUNDLE, converted))
    assert committed["sizes"] == fresh["sizes"]
    codec, text = (
        [np.load(folder / name) for folder in (converted, TINY_BUNDLE)] for name in (CODEC_TABLE, TEXT_TABLE)
    )
    np.testing.assert_array_equal(*codec)  # copied from the checkpoint
    assert_close(*text)  # a matrix product, which the processor of whoever committed it rounded in its own way


def decoded(bundle: OpenBundle, codes: np.ndarray, chunk: int) -> np.ndarray:
    """The codec decoder's samples, so many frames at a time."""
    state, samples = bundle.codec_decoder.start(), []
    for start in range(0, len(codes), chunk):
        waveform, (state,) = bundle.codec_decoder.decode(codes[None, start : start + chunk], [state])
        samples.append(waveform[0])
    return np.concatenate(samples)


def noise_db(found: np.ndarray, wanted: np.ndarray) -> float:
    """What two recordings differ by, root mean square, in dB of the wanted one's."""
    return float(10 * np.log10(np.square(found - wanted).mean() / np.square(wanted).mean() + 1e-20))


def test_the_decoder_in_8_bits_is_quiet_however_it_is_cut(exact: OpenBundle) -> None:
    """A rounding may fall otherwise in another chunk; that is less than what 8 bits cost at all.

    Seen: -36 dB of the speech by 8 bits, -42 between single frames and all in one; other processors round otherwise.
    """
    quantised = open_bundle(TINY_BUNDLE, provider="cpu", threads=1, slots=1)
    assert quantised.manifest.graphs["codec_decoder"].precision == "int8"
    with one_thread():
        spoken = np.concatenate(spoken_codes(TINY_BUNDLE, quantised.manifest, lambda done, total: None))
    wanted, whole = (decoded(bundle, spoken, len(spoken)) for bundle in (exact, quantised))
    assert np.abs(wanted).max() > 0.1, "silence would prove nothing"
    assert noise_db(whole, wanted) < -34
    for chunk in (1, 4, 7):
        found = decoded(quantised, spoken, chunk)
        assert noise_db(found, wanted) < -34, chunk
        assert noise_db(found, whole) < -39, chunk


@pytest.mark.parametrize("folder", LARGEST, ids=["bundle", "checkpoint"])
def test_it_is_small(folder: Path) -> None:
    files = folder.glob("*") if folder == TINY_BUNDLE else folder.rglob("*")
    assert sum(file.stat().st_size for file in files if file.is_file()) <= LARGEST[folder]
