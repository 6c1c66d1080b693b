"""Recordings in the formats that the official package reads become the same samples."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from server.audio.recording import read_recording
from tests.server.audio.recordings import RATE, SOUNDFILE, recorded
from tests.uncompiled import import_uncompiled

RESAMPLE: Callable[..., NDArray[np.float32]] = import_uncompiled("librosa.core.audio", "librosa.util.utils")[0].resample
"""`librosa.resample`, which is plain Python around soxr."""


def official(body: bytes) -> NDArray[np.float32]:
    """What qwen-tts 0.1.1 makes of bytes: soundfile, the mean of the channels, librosa."""
    samples, rate = soundfile.read(io.BytesIO(body), dtype="float32", always_2d=False)
    mono = np.mean(samples, axis=-1).astype(np.float32) if samples.ndim > 1 else samples
    return mono if rate == RATE else RESAMPLE(mono, orig_sr=rate, target_sr=RATE)


@pytest.mark.parametrize("form", SOUNDFILE)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
def test_samples_are_those_of_the_official_package(form: str, channels: int, rate: int) -> None:
    body = recorded(form, rate, channels)
    found = read_recording(body, rate=RATE, most_seconds=30)
    assert np.array_equal(found.samples, official(body))
    assert found.samples.dtype == np.float32
    assert found.seconds == pytest.approx(3, abs=1e-3)
    assert found.notes == ()
