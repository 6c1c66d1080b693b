"""States of the codec decoder in buffers on a device: rows give what they give with states of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from export.graphs.cuda.pooled import pool_states
from server.engine.primed import MOST_HELD, PrimedStates
from server.engine.provider import open_bundle
from server.graphs.bound_call import BoundCall
from server.graphs.codec_decoder import FRAMES_AT_ONCE, CodecDecoder
from server.graphs.cuda.codec_decoder import FRAMES, ROWS, STATES_A_ROW, PooledCodecDecoder
from tests.unrolled import pooled_decoder

SLOTS = 2
Tensors = Mapping[str, ort.OrtValue]


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


@pytest.mark.parametrize(("slots", "rows"), [(1, 1), (2, 3), (3, 3)])
def test_any_number_of_rows_and_frames(
    plain: tuple[Path, CodecDecoder, np.ndarray], monkeypatch: pytest.MonkeyPatch, slots: int, rows: int
) -> None:
    """In calls of few shapes, each of which gives the same when it is run again, as it is while it is recorded."""
    folder, decoder, codes = plain
    run, pooled = BoundCall.run, pooled_decoder(folder, slots)
    bound: list[int] = []
    shapes: dict[int, tuple[int, int]] = {}

    def call(session: ort.InferenceSession, inputs: Tensors, outputs: Tensors, number: int) -> BoundCall:
        size, count, _ = inputs["codes"].shape()
        shapes[number] = size, count
        bound.append(number)
        return BoundCall(session, inputs, outputs)

    def thrice(self: BoundCall) -> None:
        for _ in range(3):
            run(self)

    monkeypatch.setattr(pooled._memory, "call", call)
    monkeypatch.setattr(BoundCall, "run", thrice)
    start = 0
    expected_states, states = [decoder.start()] * rows, [pooled.start()] * rows
    for frames in (1, 3, 7, 8, 5, 21, 6, 2):
        part = codes[:rows, start : start + frames]
        expected, expected_states = decoder.decode(part, expected_states)
        found, states = pooled.decode(part, states)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        start += frames
    assert len(bound) == len(set(bound)) == len(set(shapes.values())), "a call is made once, under a number of its own"
    assert set(shapes.values()) <= set(product(ROWS, FRAMES))


def test_a_call_on_the_cpu_has_no_more_frames_than_others_there(
    plain: tuple[Path, CodecDecoder, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime keeps the memory of its largest call."""
    folder, decoder, codes = plain
    pooled, shapes = pooled_decoder(folder, 7, device=False), []

    def call(session: ort.InferenceSession, inputs: Tensors, outputs: Tensors, number: int) -> BoundCall:
        shapes.append(inputs["codes"].shape())
        return BoundCall(session, inputs, outputs)

    monkeypatch.setattr(pooled._memory, "call", call)
    codes = np.concatenate([codes, codes, codes[:1]])
    expected_states, states, start = [decoder.start()] * 7, [pooled.start()] * 7, 0
    for frames in (1, 2, 3, 4, 8, 21):
        part = codes[:, start : start + frames]
        expected, expected_states = decoder.decode(part, expected_states)
        found, states = pooled.decode(part, states)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        start += frames
    assert max(rows * frames for rows, frames, _ in shapes) == FRAMES_AT_ONCE


def test_a_call_that_fails_leaves_the_places_free(
    plain: tuple[Path, CodecDecoder, np.ndarray], pooled: PooledCodecDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, decoder, codes = plain
    expected, _ = decoder.decode(codes[:1, :3], [decoder.start()])
    run = BoundCall.run
    turns: list[ort.RunOptions] = []

    def failing(self: BoundCall, options: ort.RunOptions) -> None:
        turns.append(options)
        if len(turns) % 2 == 0:  # the second one of each row
            raise RuntimeError("no GPU any more")
        run(self, options)

    monkeypatch.setattr(BoundCall, "run", failing)
    for _ in range(3 * SLOTS * STATES_A_ROW):
        with pytest.raises(RuntimeError, match="no GPU"):
            pooled.decode(codes[:1, :3], [pooled.start()])
    monkeypatch.undo()
    found, _ = pooled.decode(codes[:1, :3], [pooled.start()])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_tensors_whose_shapes_are_not_fixed_are_refused(plain: tuple[Path, CodecDecoder, np.ndarray]) -> None:
    model = onnx.load(plain[0] / "codec_decoder.onnx", load_external_data=False)
    carried = next(value for value in model.graph.input if value.name == "past.first")
    carried.type.tensor_type.shape.dim[2].dim_param = "steps"
    with pytest.raises(ValueError, match="not fixed: first"):
        pool_states(model)


def test_samples_alone_come_back(
    plain: tuple[Path, CodecDecoder, np.ndarray], pooled: PooledCodecDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes up is whole numbers: codes, positions and places."""
    _, _, codes = plain
    states = [pooled.start()] * 2
    back, update, numpy = [], ort.OrtValue.update_inplace, ort.OrtValue.numpy
    up: list[np.ndarray] = []
    waveform, states = pooled.decode(codes[:2, :4], states)  # its buffers are cleared as they are made
    monkeypatch.setattr(ort.OrtValue, "update_inplace", lambda self, data: (up.append(data), update(self, data)))
    monkeypatch.setattr(ort.OrtValue, "numpy", lambda self: (back.append(self.shape()), numpy(self))[1])
    for start in (4, 8):
        waveform, states = pooled.decode(codes[:2, start : start + 4], states)
    assert back == [[*waveform.shape]] * 2
    assert [(data.dtype, data.shape) for data in up] == [(np.int64, codes[:2, :4].shape), *[(np.int64, (2,))] * 3] * 2
