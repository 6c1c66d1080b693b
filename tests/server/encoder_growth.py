"""By how many bytes a process grows while it encodes: `python -m tests.server.encoder_growth FORMAT`.

A process of its own, since what tests leave behind in theirs moves by megabytes at any time.
"""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path
from typing import cast

import numpy as np

from server.audio.encoders import make_encoder
from server.audio.formats import AudioFormat

SAMPLE_RATE = 24_000

WARM_FRAMES, FRAMES = 375, 750
"""Codec frames of 80 ms: half a minute until buffers have the size that they keep, and the minute that is measured."""


def resident() -> int:
    """Bytes of memory that the process has now; the counter in `statm` may be off by hundreds of kilobytes."""
    told = re.search(r"^Rss: +(\d+) kB$", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert told
    return 1024 * int(told[1])


def growth(audio_format: AudioFormat) -> tuple[int, int]:
    """Bytes of the encoded minute, and by how many bytes the process has grown over it."""
    encoder = make_encoder(audio_format, SAMPLE_RATE)
    samples = (0.5 * np.sin(2 * np.pi * 440 / SAMPLE_RATE * np.arange(1920))).astype(np.float32)
    for _ in range(WARM_FRAMES):
        encoder.encode(samples)
    gc.collect()
    before = resident()
    encoded = sum(len(encoder.encode(samples)) for _ in range(FRAMES))
    return encoded, resident() - before


if __name__ == "__main__":
    sys.stdout.write("{} {}".format(*growth(cast(AudioFormat, sys.argv[1]))))
