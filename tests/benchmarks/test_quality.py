"""The measures of how a model speaks: what each of them sees, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality import HELD_OUT, LONGEST, RATE, Spoken, inputs_of_all_lengths, mel_cepstral_distance, sentences
from benchmarks.recogniser import word_error_rate
from tests.uncompiled import import_uncompiled

TEXTS = HELD_OUT.read_text("utf-8").splitlines()


def voice(pitch: float, seconds: float = 1.0) -> np.ndarray:
    """Harmonics that rise and fall."""
    at = np.arange(int(seconds * RATE)) / RATE
    glide = pitch * (1 + 0.2 * np.sin(4 * at))
    phase = 2 * np.pi * np.cumsum(glide) / RATE
    return sum(np.sin(number * phase) / number for number in range(1, 20)).astype(np.float32) * 0.1


def test_inputs_have_all_lengths() -> None:
    lengths = [len(text) for text in inputs_of_all_lengths(TEXTS, 200)]
    assert lengths[0] == 1 and max(lengths) <= LONGEST and lengths[-1] > 0.9 * LONGEST
    wanted = np.linspace(1, LONGEST, 200)
    assert np.abs(np.array(lengths) - wanted).max() < 25
    assert len(set(inputs_of_all_lengths(TEXTS, 200))) == 200


def test_chosen_sentences_have_at_least_four_words() -> None:
    assert len(chosen := sentences(TEXTS, 100)) == 100
    assert min(len(text.split()) for text in chosen) >= 4


def test_distance_is_of_timbre_not_of_tempo_or_loudness() -> None:
    import_uncompiled("librosa.feature.spectral", "librosa.sequence", "librosa.util.utils")
    same = mel_cepstral_distance(voice(120), voice(120) * 0.5)
    slower = mel_cepstral_distance(voice(120), voice(120, 1.3)[: int(1.2 * RATE)])
    noise = np.random.default_rng(0).normal(scale=0.1, size=RATE).astype(np.float32)
    assert same < 0.5
    assert slower < mel_cepstral_distance(voice(120), noise) / 2


@pytest.mark.parametrize(
    ("seconds", "runaway", "early"), [(2.0, False, False), (2.6, False, False), (6.0, True, False), (0.5, False, True)]
)
def test_runaways_and_early_stops(seconds: float, runaway: bool, early: bool) -> None:
    spoken = Spoken("Hello.", voice(120, 2.0), voice(120, seconds))
    assert (spoken.runaway, spoken.early_stop) == (runaway, early)


def test_what_the_server_gave_up_is_a_runaway() -> None:
    assert Spoken("Hello.", voice(120), None).runaway


@pytest.mark.parametrize(
    ("heard", "rate"),
    [("it costs twelve dollars", 0.0), ("It costs $12!", 0.0), ("it cost $12", 1 / 3), ("", 1.0)],
)
def test_the_error_rate_counts_words_and_not_their_spelling(heard: str, rate: float) -> None:
    assert word_error_rate(["It costs $12."], [heard]) == pytest.approx(rate)
