"""Recordings of nobody, in any format: a tone that swells, with noise."""

from __future__ import annotations

import base64
import io
from functools import cache

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 24_000
SOUNDFILE = ("WAV", "FLAC", "OGG", "MP3")
LIBAV = {"mp4": "aac", "webm": "libopus", "adts": "aac"}


def swelling(seconds: float = 3.0, rate: int = RATE, channels: int = 1) -> NDArray[np.float32]:
    """Samples `[n]`, or `[n, channels]` with another level in each channel."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(0, 0.01, time.size)
    mono = 0.3 * np.sin(2 * np.pi * 220 * time) * (1 + 0.3 * np.sin(3 * time)) + noise
    both = mono[:, np.newaxis] * np.linspace(1, 0.5, channels)
    return (mono if channels == 1 else both).astype(np.float32)


def written(samples: NDArray[np.float32], rate: int = RATE, form: str = "WAV", subtype: str | None = None) -> bytes:
    """A file by libsndfile."""
    body = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(body, "w", rate, channels, format=form, subtype=subtype) as file:
        for start in range(0, len(samples), rate):  # libsndfile writes no long Vorbis at once
            file.write(samples[start : start + rate])
    return body.getvalue()


@cache
def recorded(form: str = "WAV", rate: int = RATE, channels: int = 1, seconds: float = 3.0, title: str = "") -> bytes:
    """A file in one of `SOUNDFILE` or `LIBAV`; only the latter may have a title."""
    samples = swelling(seconds, rate, channels)
    if form in SOUNDFILE:
        return written(samples, rate, form)
    body, layout = io.BytesIO(), {1: "mono", 2: "stereo"}[channels]
    with av.open(body, "w", format=form) as container:
        container.metadata["title"] = title
        stream = container.add_stream(LIBAV[form], rate=rate, layout=layout)
        planes = np.ascontiguousarray(np.atleast_2d(samples.T))
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return body.getvalue()


def data_url(recording: bytes) -> str:
    """A file as a request brings it along."""
    return "data:audio/wav;base64," + base64.b64encode(recording).decode()
