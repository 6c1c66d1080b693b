"""The ear of `benchmarks.quality`: it writes down what a voice says, and no words where nobody speaks."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hibari import Hibari

from benchmarks.recogniser import hear, word_error_rate
from tests.server.running import RunningServer

SENTENCES = ["The train leaves at seven in the morning.", "She found the old book under the table."]
RATE = 24_000


@pytest.fixture(scope="module")
def heard() -> list[str]:
    """What is heard when hibari-tts says them."""
    voice = Hibari()
    return [hear(np.asarray(voice(text, seed=0), np.float32), RATE) for text in SENTENCES]


def test_the_recogniser_understands_clear_speech(heard: list[str]) -> None:
    assert word_error_rate(SENTENCES, heard) <= 0.1, heard


def test_the_wrong_sentence_has_a_high_error_rate(heard: list[str]) -> None:
    assert word_error_rate(SENTENCES, heard[::-1]) > 0.7


@pytest.mark.parametrize("level", [0.0, 0.1], ids=["silence", "noise"])
def test_no_words_where_nobody_speaks(level: float) -> None:
    audio = np.random.default_rng(0).normal(scale=level, size=3 * RATE).astype(np.float32)
    assert word_error_rate(SENTENCES[:1], [hear(audio, RATE)]) > 0.7


def test_random_weights_are_not_understood(real_server: RunningServer) -> None:
    body = {"model": "tts-1", "voice": "alloy", "input": SENTENCES[0], "response_format": "wav", "seed": 1}
    with real_server.client() as client:
        response = client.post("/v1/audio/speech", json={**body, "exact_frames": 30, "stream": False})
    audio = soundfile.read(io.BytesIO(response.raise_for_status().content), dtype="float32")[0]
    assert word_error_rate(SENTENCES[:1], [hear(audio, RATE)]) > 0.7
