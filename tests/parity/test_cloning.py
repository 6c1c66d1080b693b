"""Cloned voices are the official package's: what it makes of a recording, what it says with it, and how that sounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch

from export.encoders_parity import sample_recording
from server.engine.bundle import OpenBundle
from server.engine.job import Job
from server.engine.prompt import Layout
from server.engine.provider import open_bundle
from server.engine.reference import Reference
from server.engine.synthesizer import Synthesizer
from server.graphs.code_predictor import CodePredictor
from server.manifest import read_manifest
from tests.closeness import ROUNDING, assert_close
from tests.oracle import Official, assert_official, load_official
from tests.parity.test_official import GREEDY

SHAPES = ("Base", "Base 1.7B-like", "Base odd", "Base wide")
FRAMES = 24
"""More than the text has tokens, which are given one a frame where it streams."""
TEXT = "Go, 今天 at noon."
SHORT, LONG = 0.6, 2.5
"""Seconds of the recordings: with their texts the first has fewer frames than the prompt has tokens, for most shapes,
and the second has more. With the speech behind it the second is no longer than what the package decodes in one go."""
WORDS = {SHORT: "A short one, with many more words than it has frames.", LONG: "是的。"}
LANGUAGES = ("English", "Chinese", "auto")
EMBEDDING, WAVEFORM = 1e-4, 1e-3


class Way(NamedTuple):
    """Seconds of the recording, whether it is gone on from, and the language."""

    seconds: float
    icl: bool
    language: str


WAYS = [Way(seconds, icl, language) for seconds in (SHORT, LONG) for icl in (True, False) for language in LANGUAGES]


def recording(seconds: float) -> np.ndarray:
    """So much of a buzz like a voice, and noise, from silence on."""
    count, voice = round(24_000 * seconds), sample_recording()
    noise = np.random.default_rng(1).normal(scale=0.05, size=count)
    samples = np.resize(np.roll(voice, 12_345), count) + noise * (np.arange(count) // 9_000 % 2)
    samples[:1_000] = 0
    return samples.astype(np.float32)


@cache
def voice(official: Official, seconds: float, icl: bool) -> Any:
    """What the official package makes of such a recording."""
    return official.voice(recording(seconds), WORDS[seconds] if icl else None)


class Pair(NamedTuple):
    """The official model and our bundle of one checkpoint."""

    official: Official
    bundle: OpenBundle


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, checkpoint_of: Callable[[str], Path], bundle_of: Callable[[str], Path]) -> Pair:
    bundle = open_bundle(bundle_of(request.param), provider="cpu", threads=1, slots=len(WAYS))
    return Pair(load_official(checkpoint_of(request.param)), bundle)


def encode(bundle: OpenBundle, samples: np.ndarray, text: str | None) -> Reference:
    assert bundle.references is not None
    return bundle.references.encode(samples, text)


@torch.inference_mode()
def assert_nearest(found: np.ndarray, expected: np.ndarray, official: Official, samples: np.ndarray) -> None:
    """Check that codes `[frames, groups]` are the official ones.

    Where they part in a frame, two vectors must have been equally near; what follows there is the rest of another one.
    """
    assert found.shape == expected.shape
    for frame, group in _first_differences(found, expected):
        encoder = official.model.speech_tokenizer.model.encoder
        hidden = encoder.encoder(torch.from_numpy(samples)[None, None])
        hidden = encoder.encoder_transformer(hidden.transpose(1, 2), return_dict=True).last_hidden_state
        hidden = encoder.downsample(hidden.transpose(1, 2))[..., frame : frame + 1]
        split = encoder.quantizer
        books = split.acoustic_residual_vector_quantizer if group else split.semantic_residual_vector_quantizer
        rest = books.input_proj(hidden)[0, :, 0]
        for earlier in range(1, group):
            rest = rest - books.layers[earlier - 1].codebook.embed[expected[frame, earlier]]
        vectors = books.layers[max(group - 1, 0)].codebook.embed
        ours, theirs = ((rest - vectors[codes[frame, group]]).norm().item() for codes in (found, expected))
        assert ours == pytest.approx(theirs, rel=ROUNDING), f"code {group} of frame {frame} is not the nearest"


def _first_differences(found: np.ndarray, expected: np.ndarray) -> list[tuple[int, int]]:
    """Frame and group of each frame's first code that differs; code 0 and the others are chosen independently."""
    places = []
    for frame in range(len(found)):
        differing = np.flatnonzero(found[frame] != expected[frame])
        places += [(frame, 0)] if 0 in differing else []
        places += [(frame, int(group)) for group in differing[differing > 0][:1]]
    return places


@pytest.mark.parametrize("seconds", [0.5, 0.6, 2.5, 12.3456])
def test_a_recording_becomes_the_official_embedding_and_codes(pair: Pair, seconds: float) -> None:
    """The longest is longer than the ten seconds that another attention kernel would look back."""
    samples = recording(seconds)
    expected = pair.official.voice(samples, "words")
    found = encode(pair.bundle, samples, "words")
    assert_close(found.speaker, expected.ref_spk_embedding.numpy(), EMBEDDING)
    assert found.codes is not None
    assert_nearest(found.codes, expected.ref_code.numpy(), pair.official, samples)
    assert len(np.unique(found.codes, axis=0)) > min(4, len(found.codes) - 1), "a constant answer would prove nothing"
    assert found.text == "words"


@pytest.mark.parametrize("seconds", [60, 2 + 1 / 24_000, 2.08 - 1 / 24_000, 4])
def test_a_minute_and_a_sample_are_lengths_as_any(
    checkpoint_of: Callable[[str], Path], bundle_of: Callable[[str], Path], seconds: float
) -> None:
    """The others are one part of what is encoded at a time and a sample, one and almost a frame, and two."""
    samples, official = recording(seconds), load_official(checkpoint_of("Base"))
    bundle = open_bundle(bundle_of("Base"), provider="cpu", threads=1, slots=1)
    found = encode(bundle, samples, "words").codes
    assert found is not None
    assert_nearest(found, official.voice(samples, "words").ref_code.numpy(), official, samples)


def test_a_voice_alone_has_no_codes(pair: Pair) -> None:
    samples = recording(SHORT)
    found = encode(pair.bundle, samples, None)
    assert found.codes is None
    assert found.text is None
    assert_close(found.speaker, pair.official.voice(samples, None).ref_spk_embedding.numpy(), EMBEDDING)


class Noting(CodePredictor):
    """A code predictor that keeps the codes of every frame, `[rows, groups]` each."""

    def __init__(self, inner: CodePredictor) -> None:
        self._inner = inner
        self.frames: list[np.ndarray] = []

    def run(self, start: int, controls: np.ndarray) -> np.ndarray:
        self.frames.append(self._inner.run(start, controls).copy())
        return self.frames[-1]


def speak(bundle: OpenBundle, jobs: list[Job]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Codes `[rows, frames, groups]` and samples of jobs, all of them rows of one batch."""
    noting = Noting(bundle.code_predictor)
    synthesizer = Synthesizer(dataclasses.replace(bundle, code_predictor=noting))
    rows = [synthesizer.start(job, slot) for slot, job in enumerate(jobs)]
    while not all(row.finished for row in rows):
        synthesizer.frame(rows)
    for row in rows:
        assert row.error is None
        row.job.finish()
    return np.stack(noting.frames, axis=1), [np.concatenate(list(job)) for job in jobs]


@pytest.mark.parametrize("layout", get_args(Layout))
def test_codes_and_waveform_are_the_official_ones(pair: Pair, layout: Layout) -> None:
    official, bundle = pair
    items = [voice(official, way.seconds, way.icl) for way in WAYS]
    voices = [(item, way.language) for item, way in zip(items, WAYS, strict=True)]
    expected = official.cloned(TEXT, voices, frames=FRAMES, non_streaming_mode=layout == "whole")
    jobs = []
    for way, item in zip(WAYS, items, strict=True):
        codes = None if item.ref_code is None else item.ref_code.numpy()
        reference = Reference(item.ref_spk_embedding.numpy(), codes, item.ref_text)
        prompt = bundle.prompts.build(
            TEXT, speaker=None, language=way.language.lower(), instruction=None, layout=layout, reference=reference
        )
        jobs.append(Job(prompt, GREEDY, seed=1, max_frames=FRAMES))
    found, samples = speak(bundle, jobs)
    for codes, choices in zip(found, expected, strict=True):
        assert choices.codes.shape == (FRAMES, bundle.manifest.sizes.code_predictor.num_code_groups)
        assert_official(codes, choices)
    # Greedy speech of random weights may soon go in circles, but not with each voice and in each language.
    distinct = sorted(len(np.unique(choices.codes, axis=0)) for choices in expected)
    assert distinct[len(WAYS) // 2] > FRAMES / 8, "frames that hardly change would prove nothing"
    for row in (0, 6, 9):  # both recordings, and a voice alone
        wanted = official.cloned_waveform(items[row], found[row])
        # The official cut is that of a rounded product, which may leave the recording's last sample in.
        assert len(wanted) - len(samples[row]) in (0, 1)
        assert 0.05 < np.abs(wanted).max() < 1, "silence and clipped sound would prove nothing"
        assert_close(samples[row], wanted[len(wanted) - len(samples[row]) :], WAVEFORM)


def test_the_manifest_says_that_it_clones(bundle_of: Callable[[str], Path]) -> None:
    manifest = read_manifest(bundle_of("Base"))
    assert manifest.clones
    assert (manifest.speakers, manifest.follows_instructions) == ({}, False)
    assert {"speaker_encoder", "codec_encoder"} < set(manifest.graphs)
    assert manifest.graphs["speaker_encoder"].precision == manifest.graphs["codec_encoder"].precision == "fp32"
    assert manifest.parity["recording"]["equal"] == manifest.parity["recording"]["compared"] > 0
    assert manifest.parity["graphs"]["speaker_encoder"]["relative_error"] < EMBEDDING
