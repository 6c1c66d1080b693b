"""Benchmarks that call the talker by itself have it look back over values, and not over memory that is not there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import kv_cache, profile
from benchmarks.attended import fill_caches
from benchmarks.operator import __main__ as operator
from server.engine.provider import open_bundle
from server.graphs.caches import Saved
from server.graphs.codec_decoder import CodecDecoder, CodecState
from server.graphs.session import open_session
from server.graphs.talker import Talker
from server.manifest import read_manifest
from tests.bundles import RANDOM_BUNDLE
from tests.int8_cache import with_float32_cache, with_int8_cache

ROWS, PAST = 2, 5
MANIFEST = read_manifest(RANDOM_BUNDLE)


def of_profile() -> None:
    session = open_session(RANDOM_BUNDLE / MANIFEST.graphs["talker"].file, "cpu", 1)
    call, _ = profile.calls("talker", session, MANIFEST, ROWS, PAST)
    call()


def of_kv_cache() -> None:
    kv_cache.times([RANDOM_BUNDLE], ROWS, PAST, threads=1)


def of_operator() -> None:
    bundle = open_bundle(RANDOM_BUNDLE, provider="cpu", threads=1, slots=ROWS)
    operator.graphs({operator.STOCK: bundle}, ROWS, PAST, 1, time.perf_counter)


def assert_written(caches: Saved) -> None:
    """No position of any head is zeros, and the values of no two are the same."""
    for cache in caches:
        positions = cache.reshape(-1, cache.shape[-1])
        assert positions.any(axis=1).all()
        assert len(np.unique(positions, axis=0)) == len(positions)


@pytest.mark.parametrize("measure", [of_profile, of_kv_cache, of_operator])
def test_the_talker_looks_back_over_values(monkeypatch: pytest.MonkeyPatch, measure: Callable[[], None]) -> None:
    monkeypatch.setattr(kv_cache, "OPENED", 1)
    monkeypatch.setattr(kv_cache, "CALLS", 1)
    advance, seen = Talker.advance, list[Saved]()

    def watched(self: Talker, start: int, stop: int, longest: int) -> None:
        assert (start, stop, longest) == (0, ROWS, PAST + 1)
        seen.extend(self.save(slot, PAST) for slot in range(ROWS))
        advance(self, start, stop, longest)

    monkeypatch.setattr(Talker, "advance", watched)
    measure()
    assert len(seen) >= ROWS
    for caches in seen:
        assert_written(caches)
    assert not np.array_equal(seen[0][0], seen[1][0])  # rows have their own


def test_the_codec_decoder_looks_back_over_values(monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session(RANDOM_BUNDLE / MANIFEST.graphs["codec_decoder"].file, "cpu", 1)
    decode, seen = CodecDecoder.decode, list[CodecState]()

    def watched(self: CodecDecoder, codes: NDArray[np.int64], states: Sequence[CodecState]) -> object:
        seen.extend(states)
        return decode(self, codes, states)

    monkeypatch.setattr(CodecDecoder, "decode", watched)
    call, _ = profile.calls("codec_decoder", session, MANIFEST, ROWS, PAST)
    assert not seen  # what is called before would be counted
    call()
    assert [state.position for state in seen] == [PAST] * ROWS
    for state in seen:
        assert all(np.count_nonzero(tensor.numpy()) == tensor.numpy().size for tensor in state.tensors)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_caches_of_either_type_are_filled(tmp_path: Path, kind: str) -> None:
    folder = with_float32_cache(RANDOM_BUNDLE, tmp_path / "float32")
    if kind == "int8":
        folder = with_int8_cache(folder, tmp_path / "int8")
    talker = open_bundle(folder, provider="cpu", threads=1, slots=ROWS + 1).talker
    fill_caches(talker, ROWS, PAST)
    for slot in range(ROWS):
        caches = talker.save(slot, PAST)
        assert {cache.dtype.name for cache in caches} == {kind}
        assert_written(caches)
    assert not any(cache.any() for cache in talker.save(ROWS, PAST))
    assert not any(cache[:, PAST:].any() for cache in talker.save(0, PAST + 1))
