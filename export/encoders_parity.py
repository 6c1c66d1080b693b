"""The two encoders of a checkpoint that clones voices: what PyTorch makes of a recording, and what the graphs do.

There is no recording in a checkpoint, so that a buzz with a voice's pitch and formants stands for one. It is also the
voice that such a model speaks with while it is converted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.checkpoint import Checkpoint
from export.graphs.codec_encoder import CodecEncoder
from export.graphs.speaker_encoder import SpeakerEncoder
from server.engine.reference import SAMPLE_RATE, Reference
from server.graphs.encoders import codec_codes, speaker_embedding
from server.graphs.session import open_session
from server.manifest import CODEC_ENCODER, SPEAKER_ENCODER, Manifest

Floats = NDArray[np.float32]

SECONDS, PITCH = 3, 120.0
FORMANTS = ((700, 1200, 2600), (400, 2000, 2600), (350, 900, 2400))
"""Hz of three vowels, which follow each other, a third of a second each."""


def sample_recording() -> Floats:
    """Three seconds of a buzz that changes its vowel and its pitch, at 24 kHz; always the same."""
    time = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    phase = 2 * np.pi * (PITCH * time + 3 * np.sin(2 * np.pi * time))
    formants, vowel = np.array(FORMANTS), (3 * time).astype(int) % len(FORMANTS)
    sound = np.random.default_rng(0).normal(scale=0.003, size=len(time))
    for harmonic in range(1, 40):
        near = np.exp(-(((harmonic * PITCH - formants) / 150) ** 2)).sum(axis=1)
        sound += (0.1 * (near + 0.5 / harmonic**2))[vowel] * np.sin(harmonic * phase)
    return np.asarray(sound * np.sin(3 * np.pi * time) ** 2, np.float32)


@dataclass(frozen=True)
class Encoded:
    """What the checkpoint's encoders make of `sample_recording`: `speaker` `[hidden]`, `codes` `[frames, groups]`."""

    speaker: Floats
    codes: NDArray[np.int64]

    @property
    def voice(self) -> Reference:
        """The voice without its recording."""
        return Reference(self.speaker)


@torch.inference_mode()
def encode_sample(checkpoint: Checkpoint) -> Encoded:
    """Run the torch modules on the recording, whole."""
    waveform = torch.from_numpy(sample_recording())[None]
    (speaker,) = SpeakerEncoder.from_checkpoint(checkpoint)(waveform)
    encoder = CodecEncoder.from_checkpoint(checkpoint)
    fixed = [torch.zeros(1, *spec.shape) for spec in encoder.states()]
    growing = [torch.zeros(1, spec.shape[0], 0, spec.shape[2]) for spec in encoder.encoder_transformer.caches()]
    codes, *_ = encoder(waveform, [*fixed, *growing])
    return Encoded(speaker[0].numpy(), codes[0].numpy())


def run_encoders(folder: Path, manifest: Manifest, threads: int = 0) -> Encoded:
    """Run the bundle's graphs on the recording, as the server does."""
    sessions = {
        name: open_session(folder / manifest.graphs[name].file, "cpu", threads)
        for name in (SPEAKER_ENCODER, CODEC_ENCODER)
    }
    recording, step = sample_recording(), manifest.sizes.codec.samples_per_frame
    return Encoded(
        speaker_embedding(sessions[SPEAKER_ENCODER], recording), codec_codes(sessions[CODEC_ENCODER], recording, step)
    )
