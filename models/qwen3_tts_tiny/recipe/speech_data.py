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
_VOICED = 60.0
SILENT = (0, 16, 156, 157, 158)
"""The teacher's padding, space, both stress marks and its length mark."""
SLOTS = 4
"""Places in a codec frame, evenly spread, at which the teacher's phoneme and pitch are looked up."""


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

    `audio` int16 `[samples]`, memory-mapped; `starts` int64 `[utterances + 1]` in codec frames. By frame: `phones`
    int64 `[frames, SLOTS]`, the teacher's phonemes; `pitch` float32 `[frames, SLOTS]`, log2 of Hz, drawn on where
    there is none; `words` int64 `[frames]`, the word in the middle, -1 where not known; `left` int64 `[frames]`, how
    many of the teacher's steps the last slot's phoneme still lasts; `coming` int64 `[frames]`, the sound after it (the
    teacher's vocabulary has spaces and stress marks in between).
    """

    number: int
    audio: NDArray[np.int16]
    starts: NDArray[np.int64]
    phones: NDArray[np.int64]
    pitch: NDArray[np.float32]
    words: NDArray[np.int64]
    left: NDArray[np.int64]
    coming: NDArray[np.int64]

    def crop(self, frame: int, frames: int) -> NDArray[np.float32]:
        """Read audio in [-1, 1) of that many frames."""
        return self.audio[frame * FRAME : (frame + frames) * FRAME].astype(np.float32) / 32768


def load_shard(work: Path, number: int) -> Shard:
    """What the teacher said of one shard."""
    with np.load(work / f"spoken-{number:03d}.npz") as data:
        said = [data[name] for name in ("lengths", "phones", "pitch", "words")]
    return framed(number, np.load(work / f"audio-{number:03d}.npy", mmap_mode="r"), *said)


def framed(
    number: int,
    audio: NDArray[np.int16],
    lengths: NDArray[np.int64],
    phones: NDArray[np.uint8],
    pitch: NDArray[np.float32],
    words: NDArray[np.int16],
) -> Shard:
    """A shard by codec frames, out of what is known at the teacher's steps."""
    # The last frame of an utterance may lack its last half step, so that steps start anew with each utterance.
    frames, steps = lengths // FRAME, lengths // STEP
    first = np.concatenate([[0], np.cumsum(steps)[:-1]])
    inside = np.concatenate([np.arange(count) for count in frames])
    owner = np.repeat(np.arange(len(frames)), frames)

    def at(slot: int) -> NDArray[np.int64]:
        place = inside + (slot + 0.5) / SLOTS
        return first[owner] + np.minimum((place * FRAME / STEP).astype(np.int64), steps[owner] - 1)

    voiced = np.flatnonzero(pitch > _VOICED)
    drawn = np.interp(np.arange(len(pitch)), voiced, np.log2(pitch[voiced])).astype(np.float32)
    left, coming = _ahead(phones, first[steps > 0])
    slots = np.stack([at(slot) for slot in range(SLOTS)], 1)
    return Shard(
        number,
        audio,
        np.concatenate([[0], np.cumsum(frames)]),
        phones[slots].astype(np.int64),
        drawn[slots],
        words[at(SLOTS // 2)].astype(np.int64),
        left[slots[:, -1]],
        coming[slots[:, -1]],
    )


def _ahead(phones: NDArray[np.uint8], first: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Steps that are left of each step's phoneme, and the next sound in the same utterance (0 where there is none)."""
    new = np.concatenate([[True], phones[1:] != phones[:-1]])
    new[first] = True
    begins = np.append(np.flatnonzero(new), len(phones))
    run = np.cumsum(new) - 1
    said = phones[begins[:-1]].astype(np.int64)
    last_run = np.append(run[first[1:]], len(said))[np.searchsorted(first, begins[:-1], side="right") - 1]
    sounds = np.flatnonzero(~np.isin(said, SILENT))
    place = np.searchsorted(sounds, np.arange(len(said)), side="right")
    following = np.append(sounds, len(said))[place]
    coming = np.where(following < last_run, np.append(said, 0)[following], 0)
    return begins[run + 1] - np.arange(len(phones)), coming[run]


def finished_shards(work: Path) -> list[int]:
    """Numbers of the shards that the teacher has finished."""
    return sorted(int(file.stem.split("-")[1]) for file in work.glob("spoken-*.npz"))
