"""The codec decoder with carried state gives the samples of decoding everything at once, however it is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.provider import open_bundle
from server.graphs.codec_decoder import CodecDecoder
from tests.closeness import assert_close
from tests.oracle import load_official
from tests.parity.test_official import WAVEFORM

FRAMES = 500
"""Forty seconds: seven times the longest window of attention."""


class Case:
    """A decoder, forty seconds of codes, and what the official decoder makes of them in one pass."""

    def __init__(self, checkpoint: Path, bundle: Path) -> None:
        opened = open_bundle(bundle, provider="cpu", threads=1, slots=1)
        codec = opened.manifest.sizes.codec
        self.decoder: CodecDecoder = opened.codec_decoder
        self.step = codec.samples_per_frame
        random = np.random.default_rng(0)
        self.codes = random.integers(codec.codebook_size, size=(1, FRAMES, codec.num_quantizers))
        official = load_official(checkpoint).decoder
        with torch.inference_mode():
            self.expected = official(torch.from_numpy(self.codes).transpose(1, 2))[0, 0].numpy()

    def stream(self, chunks: Sequence[int], start: int = 0) -> np.ndarray:
        state, samples, place = self.decoder.start(), [], start
        for count in chunks:
            waveform, (state,) = self.decoder.decode(self.codes[:, place : place + count], [state])
            samples.append(waveform[0])
            place += count
        return np.concatenate(samples)


@pytest.fixture(scope="module", params=["short", "odd"])
def case(request, checkpoint_of: Callable[[str], Path], bundle_of: Callable[[str], Path]) -> Case:
    return Case(checkpoint_of(request.param), bundle_of(request.param))


def cut(total: int, sizes: Sequence[int]) -> list[int]:
    """Repeat `sizes` until `total` frames are used up."""
    chunks: list[int] = []
    while (left := total - sum(chunks)) > 0:
        chunks.append(min(sizes[len(chunks) % len(sizes)], left))
    return chunks


@pytest.mark.parametrize("sizes", [[FRAMES], [4], [1, 2, 4, 8], [300], [71], [72], [73, 1]])
def test_forty_seconds_in_fixed_chunks(case: Case, sizes: list[int]) -> None:
    found = case.stream(cut(FRAMES, sizes))
    assert len(found) == FRAMES * case.step
    assert_close(found, case.expected, WAVEFORM)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_cut_of_any_length(case: Case, data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 240))
    chunks = cut(total, data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=8)))
    found = case.stream(chunks)
    assert_close(found, case.expected[: total * case.step], WAVEFORM)


def test_every_length_is_a_prefix_of_the_longest(case: Case) -> None:
    for total in [*range(1, 40), 71, 72, 73, 143, 144, 145, 299, 300, 301, FRAMES - 1]:
        found = case.stream([total])
        assert len(found) == total * case.step
        assert_close(found, case.expected[: total * case.step], WAVEFORM)


def test_rows_at_different_positions_in_one_call(case: Case) -> None:
    alone = [case.stream([5, 4]), case.stream([90, 4], start=100)]
    states = []
    for start, first in ((0, 5), (100, 90)):
        _, (state,) = case.decoder.decode(case.codes[:, start : start + first], [case.decoder.start()])
        states.append(state)
    codes = np.concatenate([case.codes[:, 5:9], case.codes[:, 190:194]])
    together, after = case.decoder.decode(codes, states)
    assert [state.position for state in after] == [9, 94]
    for row in range(2):
        assert_close(together[row], alone[row][-4 * case.step :], WAVEFORM)
    following, _ = case.decoder.decode(case.codes[:, 9:10], [after[0]])
    assert_close(following[0], case.expected[9 * case.step : 10 * case.step], WAVEFORM)
