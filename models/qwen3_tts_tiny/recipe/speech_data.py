"""What `teacher.py` left: audio by utterance, and log-mel spectrograms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FRAME = 1920
MELS = 100
HOP = 240
MELS_A_FRAME = FRAME // HOP
STEP = 300
"""Samples of one of the teacher's frames."""
PHONES = 3
"""Phonemes that are looked at in one codec frame."""


class LogMel(nn.Module):
    """Natural log of a mel spectrogram: audio `[batch, samples]` to `[batch, mels, samples / hop]`."""

    def __init__(self, window: int = 1024, hop: int = HOP, mels: int = MELS) -> None:
        super().__init__()
        self._size, self._hop = window, hop
        bank = librosa.filters.mel(sr=24_000, n_fft=window, n_mels=mels, fmin=0, fmax=12_000)
        self.register_buffer("_bank", torch.from_numpy(bank))
        self.register_buffer("_window", torch.hann_window(window))

    def forward(self, audio: Tensor) -> Tensor:
        left = (self._size - self._hop) // 2
        padded = nn.functional.pad(audio, (left, self._size - self._hop - left))
        spectrum = torch.stft(padded, self._size, self._hop, window=self._window, center=False, return_complex=True)
        return torch.log(self._bank @ spectrum.abs() + 1e-5)


@dataclass(frozen=True)
class Shard:
    """Utterances of one shard, end to end.

    `audio` int16 `[samples]`, memory-mapped; `starts` int64 `[utterances + 1]` in codec frames; `phones` int64
    `[frames, PHONES]`, the teacher's phonemes spread evenly over each frame; `words` int64 `[frames]`, the word in the
    middle of each, -1 where it is not known.
    """

    number: int
    audio: NDArray[np.int16]
    starts: NDArray[np.int64]
    phones: NDArray[np.int64]
    words: NDArray[np.int64]

    def crop(self, frame: int, frames: int) -> NDArray[np.float32]:
        """Audio in [-1, 1) of that many frames."""
        return self.audio[frame * FRAME : (frame + frames) * FRAME].astype(np.float32) / 32768


def load_shard(work: Path, number: int) -> Shard:
    with np.load(work / f"spoken-{number:03d}.npz") as data:
        lengths, phones, words = data["lengths"], data["phones"], data["words"]
    # The last frame of an utterance may lack its last half step, so that steps start anew with each utterance.
    frames, steps = lengths // FRAME, lengths // STEP
    first = np.concatenate([[0], np.cumsum(steps)[:-1]])
    inside = np.concatenate([np.arange(count) for count in frames])
    owner = np.repeat(np.arange(len(frames)), frames)

    def at(place: NDArray[np.float64]) -> NDArray[np.int64]:
        return first[owner] + np.minimum((place * FRAME / STEP).astype(np.int64), steps[owner] - 1)

    return Shard(
        number,
        np.load(work / f"audio-{number:03d}.npy", mmap_mode="r"),
        np.concatenate([[0], np.cumsum(frames)]),
        np.stack([phones[at(inside + (part + 0.5) / PHONES)] for part in range(PHONES)], 1).astype(np.int64),
        words[at(inside + 0.5)].astype(np.int64),
    )


def finished_shards(work: Path) -> list[int]:
    """Numbers of the shards that the teacher has finished."""
    return sorted(int(file.stem.split("-")[1]) for file in work.glob("spoken-*.npz"))
