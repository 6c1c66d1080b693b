"""What is masked: noise in the band of a sound, in its moment, and below what is heard at all."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from export.audibility import HEARD_WINDOWS, ROOM_LEVEL, _room_levels, loudest_db, noise_to_mask

RATE = 24_000
SECONDS = 4


def white(seed: int) -> NDArray[np.float32]:
    """Noise of the root mean square 1."""
    return np.random.default_rng(seed).normal(size=SECONDS * RATE).astype(np.float32)


def tone(hertz: float) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * hertz / RATE * np.arange(SECONDS * RATE)).astype(np.float32)


def band_of(hertz: float) -> int:
    return int(7 * np.arcsinh(hertz / 650))


def in_band(ratios: NDArray[np.float64], hertz: float) -> float:
    return float(10 * np.log10(np.median(ratios[:, band_of(hertz)])))


@pytest.mark.parametrize("loudness", [0.3, 0.01])
def test_noise_masks_noise_down_to_six_decibels(loudness: float) -> None:
    """Johnston's offset of a noise is 5.5 dB; the spectrum of a short piece of it is not quite flat."""
    speech, noise = loudness * white(0), loudness * 0.1 * white(1)
    ratios = noise_to_mask(speech + noise, speech, RATE)
    for hertz in (300, 1000, 3000, 9000):
        assert in_band(ratios, hertz) == pytest.approx(-20 + 6, abs=2)


def test_a_tone_masks_less_and_only_its_neighbours() -> None:
    speech, noise = 0.3 * tone(1000), 3e-3 * white(0)
    ratios = noise_to_mask(speech + noise, speech, RATE)
    assert in_band(ratios, 1000) < 0, "40 dB below the tone, and in its band less"
    assert in_band(ratios, 1000) < in_band(ratios, 2000) < in_band(ratios, 9000)
    assert in_band(ratios, 700) > in_band(ratios, 1400), "masking goes upwards"
    assert loudest_db(ratios) > 15


def test_a_quiet_room_masks_what_is_softer_than_it() -> None:
    """Its level in each band is that of a room's noise: by the weights of dB(A) in the middle of the bands, 30 dB."""
    khz = 0.65 * np.sinh((np.arange(26) + 0.5) / 7)
    weights = khz**4 / ((khz**2 + 0.0206**2) * (khz**2 + 12.194**2)) * 12.194**2
    weights /= np.sqrt((khz**2 + 0.1077**2) * (khz**2 + 0.7379**2))
    levels = _room_levels(26) + 20 * np.log10(weights) + 2
    assert 10 * np.log10((10 ** (levels / 10)).sum()) == pytest.approx(ROOM_LEVEL, abs=1.5)


def test_what_nobody_can_hear_is_not_heard() -> None:
    silence = np.zeros(SECONDS * RATE, np.float32)
    assert loudest_db(noise_to_mask(1e-6 * white(0), silence, RATE)) < 0
    assert loudest_db(noise_to_mask(1e-3 * white(0), silence, RATE)) > 20
    assert loudest_db(noise_to_mask(silence, silence, RATE)) < -200


def test_soft_speech_is_turned_up() -> None:
    """Noise in a pause counts by how loud it is beside the speech, unless the speech is too soft to be speech."""
    speech, noise = white(0).astype(np.float64), 3e-3 * white(1).astype(np.float64)
    speech[len(speech) // 2 :] = 0
    loud = noise_to_mask(speech + noise, speech, RATE)
    soft = noise_to_mask(0.01 * (speech + noise), 0.01 * speech, RATE)
    softest = noise_to_mask(1e-5 * (speech + noise), 1e-5 * speech, RATE)
    np.testing.assert_allclose(soft, loud, rtol=1e-6)
    assert loudest_db(loud) > 5
    assert loudest_db(softest) < loudest_db(loud) - 30


def test_the_ratios_of_independent_noises_add_up() -> None:
    speech, noises = 0.1 * white(0), [1e-3 * white(1), 2e-3 * white(2)]
    alone = sum(noise_to_mask(speech + noise, speech, RATE).mean(0) for noise in noises)
    together = noise_to_mask(speech + sum(noises), speech, RATE).mean(0)
    np.testing.assert_allclose(together, alone, rtol=0.2)


def test_a_moment_does_not_decide_and_two_percent_do() -> None:
    ratios = np.full((1000, 25), 1e-3)
    ratios[: int(500 * HEARD_WINDOWS), 7] = 1.0
    assert loudest_db(ratios) == pytest.approx(-30)
    ratios[: int(2000 * HEARD_WINDOWS), 7] = 1.0
    assert loudest_db(ratios) == pytest.approx(0)


def test_a_piece_shorter_than_a_window_is_one_window() -> None:
    assert noise_to_mask(np.zeros(5, np.float32), np.zeros(5, np.float32), RATE).shape == (1, band_of(12_000) + 1)


def test_no_number_is_no_silence() -> None:
    samples = white(0)
    assert not loudest_db(noise_to_mask(samples * np.nan, samples, RATE)) <= 0
