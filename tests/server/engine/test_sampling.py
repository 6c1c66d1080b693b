"""The draw of the graphs and its oracle against Hugging Face's own processors, and the random streams of rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from export.graphs.code_predictor import draw as graph_draw
from server.engine.job import Sampling
from server.engine.sampling import RowSampler
from server.graphs.frame_state import RESERVED_CODES
from server.manifest import Manifest, read_manifest
from tests.bundles import RANDOM_BUNDLE
from tests.host_draw import draw, draw_code_0

CODES = 120
parameters = {
    "seed": st.integers(0, 2**32),
    "temperature": st.floats(0.1, 2.0),
    "top_k": st.integers(1, CODES),
    "top_p": st.floats(0.05, 1.0),
}


def logits_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=3, size=CODES).astype(np.float32)


def official_probabilities(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Probabilities that Hugging Face's `generate` draws from."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature), TopKLogitsWarper(top_k)])
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    return warpers(None, torch.from_numpy(logits)[None]).softmax(-1)[0].numpy()


@settings(max_examples=40, deadline=None)
@given(**parameters)
def test_the_draws_follow_the_official_probabilities(seed: int, temperature: float, top_k: int, top_p: float) -> None:
    logits = logits_of(seed)
    expected = official_probabilities(logits, temperature, top_k, top_p)
    count = 2000
    drawn = [draw(logits, temperature, top_k, top_p, (i + 0.5) / count) for i in range(count)]
    found = np.bincount(drawn, minlength=CODES) / count
    # Evenly spaced uniforms hit every code as often as its probability says, give or take one at each end. A code that
    # lies on the edge of top_p by float32 rounding may fall on either side.
    np.testing.assert_allclose(found, expected, atol=2 / count + 2e-3 * expected.max())


@settings(max_examples=200, deadline=None)
@given(uniform=st.floats(0, 1, exclude_max=True, width=32), **parameters)
def test_graph_and_host_draw_alike(seed: int, temperature: float, top_k: int, top_p: float, uniform: float) -> None:
    logits = logits_of(seed)
    tensors = [torch.tensor([value]) for value in (temperature, top_k, top_p, uniform)]
    assert int(graph_draw(torch.from_numpy(logits)[None], *tensors)) == draw(logits, temperature, top_k, top_p, uniform)


@pytest.mark.parametrize(("top_k", "top_p"), [(50, 1.0), (50, 0.5), (1, 1.0), (CODES, 1e-6), (CODES, 1.0)])
def test_the_largest_uniform_draws_one_of_the_candidates(top_k: int, top_p: float) -> None:
    largest = float(np.nextafter(np.float32(1), np.float32(0)))
    for seed in range(20):
        logits = logits_of(seed)
        tensors = [torch.tensor([value]) for value in (1.0, top_k, top_p, largest)]
        drawn = int(graph_draw(torch.from_numpy(logits)[None], *tensors))
        assert official_probabilities(logits, 1.0, top_k, top_p)[drawn] > 0


def test_a_uniform_of_zero_is_the_first_of_the_largest() -> None:
    logits = np.array([0.0, 3.0, 1.0, 3.0], np.float32)
    for top_k in (1, 2, 4):
        assert draw(logits, 1.0, top_k, 1.0, 0.0) == 1
    assert graph_draw(torch.from_numpy(logits)[None], *(torch.tensor([v]) for v in (1.0, 4, 1.0, 0.0))) == 1


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(RANDOM_BUNDLE)


def sampling(**changes: float) -> Sampling:
    return dataclasses.replace(Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0), **changes)


def test_repetition_penalty_is_the_official_one(manifest: Manifest) -> None:
    size = manifest.sizes.talker.vocab_size
    random = np.random.default_rng(0)
    sampler = RowSampler(sampling(temperature=0.0, repetition_penalty=1.6), 0, manifest)
    official = RepetitionPenaltyLogitsProcessor(1.6)
    drawn: list[int] = []
    base = 2 * random.normal(size=size)
    for _ in range(30):
        logits = (base + random.normal(size=size)).astype(np.float32)
        logits[size - RESERVED_CODES :] = -50
        scores = torch.from_numpy(logits.copy())[None]
        expected = int(official(torch.tensor([drawn], dtype=torch.long), scores).argmax())
        assert draw_code_0(sampler, logits, 0.0, end=manifest.ids.codec_eos) == expected
        sampler.accept(expected)
        drawn.append(expected)
    assert len(set(drawn)) < len(drawn), "no code came twice: the penalty has not been tried"


def test_reserved_codes_are_never_drawn_and_the_first_two_frames_do_not_end(manifest: Manifest) -> None:
    size, end = manifest.sizes.talker.vocab_size, manifest.ids.codec_eos
    logits = np.zeros(size, np.float32)
    logits[size - RESERVED_CODES :] = 50
    sampler = RowSampler(sampling(), 0, manifest)
    for uniform in (0.1, 0.9):
        code = draw_code_0(sampler, logits, uniform, end=end)
        assert code < size - RESERVED_CODES
        sampler.accept(code)
    assert end >= size - RESERVED_CODES
    assert draw_code_0(sampler, logits, 0.5, end=end) == end


def test_the_stream_of_uniforms_is_the_seeds(manifest: Manifest) -> None:
    def stream(seed: int, **changes: float) -> np.ndarray:
        sampler = RowSampler(sampling(**changes), seed, manifest)
        return np.stack([sampler.uniforms() for _ in range(5)])

    np.testing.assert_array_equal(stream(7), stream(7))
    assert not np.array_equal(stream(7), stream(8))
    assert stream(2**63 - 1).shape == (5, manifest.sizes.code_predictor.num_code_groups)
    assert (stream(7, temperature=0.0)[:, 0] == 0).all()
    np.testing.assert_array_equal(stream(7, temperature=0.0)[:, 1:], stream(7)[:, 1:])
    assert (stream(7, predictor_temperature=0.0)[:, 1:] == 0).all()


def test_going_back_forgets_codes_and_takes_another_stream(manifest: Manifest) -> None:
    logits = np.random.default_rng(3).normal(size=manifest.sizes.talker.vocab_size).astype(np.float32)

    def drawn(sampler: RowSampler, count: int) -> list[int]:
        codes = []
        for _ in range(count):
            code = draw_code_0(sampler, logits, float(sampler.uniforms()[0]), end=manifest.ids.codec_eos)
            sampler.accept(code)
            codes.append(code)
        return codes

    strong = sampling(repetition_penalty=5.0)
    first, second = (RowSampler(strong, 11, manifest) for _ in range(2))
    drawn(first, 20)
    drawn(second, 5)
    first.go_back(5, 1)
    second.go_back(5, 1)
    again = drawn(first, 20)
    assert again == drawn(second, 20), "what was drawn and forgotten still counts"
    first.go_back(5, 2)
    assert again != drawn(first, 20)
