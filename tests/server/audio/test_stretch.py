"""Time-stretch: lengths, pitch, ends, and that pieces make no difference."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.audio.stretch import MAX_SPEED, MIN_SPEED, TimeStretch

RATE = 24_000
SPEEDS = (0.25, 0.5, 0.9, 1.1, 1.5, 2.0, 3.7, 5.0)


def stretch(samples: NDArray[np.float32], speed: float, cuts: list[int] | None = None) -> NDArray[np.float32]:
    stretcher = TimeStretch(speed, RATE)
    pieces = [stretcher.process(samples[a:b]) for a, b in pairwise([0, *(cuts or []), len(samples)])]
    return np.concatenate([*pieces, stretcher.finish()])


def harmonics(pitch: float, seconds: float) -> NDArray[np.float32]:
    """A buzz with 14 harmonics, such as a voice has before it is formed."""
    phase = 2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE
    return np.sum([0.1 * np.sin(n * phase) / n for n in range(1, 15)], axis=0).astype(np.float32)


def noise(samples: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)


CLICK = np.hanning(24).astype(np.float32)


@given(samples=st.integers(0, 6000), speed=st.floats(MIN_SPEED, MAX_SPEED))
@example(samples=117, speed=0.25)
@settings(deadline=None)
def test_the_length_is_exact(samples: int, speed: float) -> None:
    stretched = stretch(noise(samples), speed)
    assert stretched.dtype == np.float32
    assert len(stretched) == round(samples / speed)
    assert np.isfinite(stretched).all()


@given(cuts=st.lists(st.integers(0, 12_000), max_size=20).map(sorted), speed=st.sampled_from(SPEEDS))
@settings(max_examples=40, deadline=None)
def test_pieces_make_no_difference(cuts: list[int], speed: float) -> None:
    samples = harmonics(150, 0.5) + noise(12_000)
    np.testing.assert_array_equal(stretch(samples, speed, cuts), stretch(samples, speed))


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("pitch", [80, 150, 300])
def test_pitch_and_level_stay(speed: float, pitch: float) -> None:
    samples = harmonics(pitch, 4)
    stretched = stretch(samples, speed)
    bins = 2**20
    spectrum = np.abs(np.fft.rfft(stretched * np.hanning(len(stretched)), bins))
    low, high = (round(factor * pitch * bins / RATE) for factor in (0.7, 1.4))
    heard = (low + np.argmax(spectrum[low:high])) * RATE / bins
    assert abs(1200 * np.log2(heard / pitch)) < 3

    def levels(signal: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.sqrt(np.mean(signal[: len(signal) // 600 * 600].reshape(-1, 600) ** 2, axis=1))

    assert levels(stretched)[1:-2].min() > 0.9 * levels(samples).min()
    assert levels(stretched).min() > 0.5 * levels(samples).min()
    assert levels(stretched).max() < 1.1 * levels(samples).max()


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("samples", [1920, 12_345, 48_000])
@pytest.mark.parametrize("background", ["silence", "noise"])
def test_nothing_is_lost_at_the_ends(speed: float, samples: int, background: str) -> None:
    signal = noise(samples) / 50 if background == "noise" else np.zeros(samples, np.float32)
    signal[: len(CLICK)] += CLICK
    signal[-len(CLICK) :] -= CLICK
    stretched = stretch(signal, speed)
    np.testing.assert_allclose(stretched[: len(CLICK)], signal[: len(CLICK)], atol=0.05)
    np.testing.assert_allclose(stretched[-len(CLICK) :], signal[-len(CLICK) :], atol=0.05)


@pytest.mark.parametrize("speed", SPEEDS)
def test_sound_is_heard_when_it_should_be(speed: float) -> None:
    samples = harmonics(150, 2)
    samples[: RATE // 2] = samples[RATE:] = 0
    heard = np.flatnonzero(np.abs(stretch(samples, speed)) > 0.05) / RATE
    assert heard[0] == pytest.approx(0.5 / speed, abs=0.01 + 0.01 / speed)
    assert heard[-1] == pytest.approx(1.0 / speed, abs=0.01 + 0.01 / speed)


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_stretcher_holds_back_at_most_a_tenth_of_a_second(speed: float) -> None:
    stretcher = TimeStretch(speed, RATE)
    given = heard = 0
    for _ in range(100):
        given += 480
        heard += len(stretcher.process(noise(480)))
        assert 0 <= given - heard * speed <= 0.1 * RATE + speed * 240


def test_stretched_silence_is_silence() -> None:
    assert not stretch(np.zeros(RATE, np.float32), 1.5).any()


def test_memory_stays_flat() -> None:
    stretcher = TimeStretch(2.0, RATE)
    for _ in range(500):
        stretcher.process(noise(1920))
    assert len(stretcher._input) < RATE


@pytest.mark.parametrize("speed", [0.24, 5.01, 0.0, -1.0, float("nan"), float("inf")])
def test_other_speeds_are_refused(speed: float) -> None:
    with pytest.raises(ValueError, match=r"speed must be from 0\.25 to 5"):
        TimeStretch(speed, RATE)
