"""States of the codec decoder in buffers on a device: rows give what they give with states of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from server.engine.primed import MOST_HELD, PrimedStates
from server.engine.provider import open_bundle
from server.graphs.codec_decoder import CodecDecoder
from server.graphs.cuda.codec_decoder import STATES_A_ROW, PooledCodecDecoder
from tests.unrolled import pooled_decoder

SLOTS = 2


@pytest.fixture(scope="module", params=["tiny", "odd"])
def plain(request: pytest.FixtureRequest, bundle_of: Callable[..., Path]) -> tuple[Path, CodecDecoder, np.ndarray]:
    """A bundle, its decoder, and frames for it `[3, frames, num_quantizers]`."""
    opened = open_bundle(bundle_of(request.param), provider="cpu", threads=1, slots=1)
    codec = opened.manifest.sizes.codec
    codes = np.random.default_rng(0).integers(codec.codebook_size, size=(3, 100, codec.num_quantizers))
    return bundle_of(request.param), opened.codec_decoder, codes


@pytest.fixture
def pooled(plain: tuple[Path, CodecDecoder, np.ndarray]) -> PooledCodecDecoder:
    return pooled_decoder(plain[0], SLOTS)


def test_rows_join_part_and_go_back(plain: tuple[Path, CodecDecoder, np.ndarray], pooled: PooledCodecDecoder) -> None:
    _, decoder, codes = plain
    heard = []
    for one in (decoder, pooled):
        first, (a, b) = one.decode(codes[:2, :5], [one.start(), one.start()])
        alone, (further,) = one.decode(codes[:1, 5:90], [a])
        swapped, (b, further) = one.decode(codes[1::-1, 90:94], [b, further])
        again, _ = one.decode(codes[2:, :3], [a])  # from a state that others have come from
        fresh, _ = one.decode(codes[2:, :3], [one.start()])
        last, after = one.decode(codes[:2, 94:95], [further, b])
        heard.append([first, alone, swapped, again, fresh, last])
        assert [state.position for state in after] == [95, 10]
    for found, expected in zip(heard[1], heard[0], strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_places_are_free_again_when_their_states_are_gone(
    plain: tuple[Path, CodecDecoder, np.ndarray], pooled: PooledCodecDecoder
) -> None:
    _, _, codes = plain
    kept = [pooled.decode(codes[:1, :1], [pooled.start()])[1][0] for _ in range(SLOTS * STATES_A_ROW)]
    with pytest.raises(RuntimeError, match="too many states"):
        pooled.decode(codes[:1, :1], [pooled.start()])
    expected, _ = pooled_decoder(plain[0], 1).decode(codes[:1, :1], [pooled_decoder(plain[0], 1).start()])
    del kept
    for _ in range(3 * SLOTS * STATES_A_ROW):
        found, _ = pooled.decode(codes[:1, :1], [pooled.start()])
        np.testing.assert_array_equal(found, expected)


def test_states_behind_recordings_leave_rows_their_own(plain: tuple[Path, CodecDecoder, np.ndarray]) -> None:
    folder, _, codes = plain
    pooled = pooled_decoder(folder, 1, MOST_HELD)
    primed, recordings = PrimedStates(pooled), [np.roll(codes[0, :9], number, axis=0) for number in range(9)]
    for recording in recordings:
        while (state := primed.state(recording)) is None:
            primed.advance(recording)
        rows = [pooled.decode(codes[:1, :1], [state])[1][0] for _ in range(STATES_A_ROW)]
        assert [row.position for row in rows] == [10] * STATES_A_ROW
        del rows


def test_a_state_of_another_decoder_is_refused(
    plain: tuple[Path, CodecDecoder, np.ndarray], pooled: PooledCodecDecoder
) -> None:
    _, decoder, codes = plain
    with pytest.raises(TypeError, match="not on the device"):
        pooled.decode(codes[:1, :1], [decoder.start()])


def test_samples_alone_come_back(
    plain: tuple[Path, CodecDecoder, np.ndarray], pooled: PooledCodecDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, codes = plain
    states = [pooled.start()] * 2
    back, update, numpy = [], ort.OrtValue.update_inplace, ort.OrtValue.numpy
    up = []
    monkeypatch.setattr(ort.OrtValue, "update_inplace", lambda self, data: (up.append(data), update(self, data)))
    monkeypatch.setattr(ort.OrtValue, "numpy", lambda self: (back.append(self.shape()), numpy(self))[1])
    for start in (0, 4):
        waveform, states = pooled.decode(codes[:2, start : start + 4], states)
    assert back == [[*waveform.shape]] * 2
    assert not up
