"""`python speech_codes.py WORK`: what each codebook stands for.

Writes `codes-n.npy` (int16 `[frames, CODEBOOKS]`) for every shard, and `books.npz`, the centres of what is quantised. A
codec that learns its codes from sound alone leaves a small talker with codes that it cannot foresee. These are chosen
to be foreseen: nearly all of them follow from the text and the frames before. Codebooks 0 to 3 are the teacher's
phonemes in four places, 4 the sound that comes next and how soon, 5 the frame's pitch contour, 6 and 7 its coarse
spectrum, quantised twice. The decoder then has to be a synthesiser, and it may be: it has one voice to know.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from layout import CODEBOOK_SIZE, CODEBOOKS
from speech_data import MELS, MELS_A_FRAME, LogMel, Shard, finished_shards, load_shard

SLOT_OF_CODEBOOK = (2, 0, 1, 3)
"""The talker's own codebook has a place in the middle of the frame."""
COMING, PITCH, COARSE, FINE = 4, 5, 6, 7
_LEFT = (2, 3, 4, 5, 7, 11, 21)
"""Steps of the teacher at which codebook 4 tells apart how soon the next sound comes: eight classes."""
_BANDS, _HALVES = 10, 2
_FLOOR = -7.0
"""The least log-mel of sound; what is quieter is silence."""
_FIT_SHARDS, _FIT_FRAMES = 4, 150_000


def spectrum(shard: Shard) -> NDArray[np.float32]:
    """Log-mel of each frame in few bands and two halves, `[frames, _HALVES * _BANDS]`."""
    mel, size, found = LogMel(), 2000, []
    for start in range(0, len(shard.words), size):
        audio = torch.from_numpy(shard.crop(start, min(size, len(shard.words) - start)))
        log = mel(audio[None])[0].clamp(min=_FLOOR)
        parts = log.reshape(_BANDS, MELS // _BANDS, -1, _HALVES, MELS_A_FRAME // _HALVES).mean((1, 4))
        found.append(parts.permute(1, 2, 0).flatten(1).numpy())
    return np.concatenate(found)


def fit(shards: list[Shard]) -> dict[str, NDArray[np.float32]]:
    """Centres of codebooks 5 to 7, and the sounds that codebook 4 knows."""
    pitch, bands = np.concatenate([shard.pitch for shard in shards]), np.concatenate([*map(spectrum, shards)])
    chosen = np.random.default_rng(0).permutation(len(pitch))[:_FIT_FRAMES]
    coarse = _centres(bands[chosen])
    rest = bands[chosen] - coarse[_nearest(bands[chosen], coarse)]
    sounds = np.unique(np.concatenate([shard.coming for shard in shards]))
    return {"sounds": sounds, "pitch": _centres(pitch[chosen]), "coarse": coarse, "fine": _centres(rest)}


def _centres(values: NDArray[np.float32]) -> NDArray[np.float32]:
    means = MiniBatchKMeans(CODEBOOK_SIZE, batch_size=8192, n_init=1, max_iter=30, random_state=0).fit(values)
    return means.cluster_centers_.astype(np.float32)


def _nearest(values: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    return (values @ centres.T - np.square(centres).sum(1) / 2).argmax(1)


def encode_sounds(shard: Shard, books: dict[str, NDArray[np.float32]]) -> NDArray[np.int16]:
    """Codes `[frames, CODEBOOKS]` of which those of the phonemes, now and next, are filled in."""
    codes = np.zeros((len(shard.words), CODEBOOKS), np.int16)
    for level, slot in enumerate(SLOT_OF_CODEBOOK):
        codes[:, level] = shard.phones[:, slot]
    sound = np.searchsorted(books["sounds"], shard.coming).clip(max=len(books["sounds"]) - 1)
    codes[:, COMING] = sound * (len(_LEFT) + 1) + np.searchsorted(_LEFT, shard.left, side="right")
    return codes


def encode(shard: Shard, books: dict[str, NDArray[np.float32]]) -> NDArray[np.int16]:
    """Codes `[frames, CODEBOOKS]`."""
    codes = encode_sounds(shard, books)
    codes[:, PITCH] = _nearest(shard.pitch, books["pitch"])
    bands = spectrum(shard)
    codes[:, COARSE] = _nearest(bands, books["coarse"])
    codes[:, FINE] = _nearest(bands - books["coarse"][codes[:, COARSE]], books["fine"])
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description="Find the codes of all the speech.")
    parser.add_argument("work", type=Path)
    work: Path = parser.parse_args().work
    numbers = finished_shards(work)
    if not (work / "books.npz").exists():
        books = fit([load_shard(work, number) for number in numbers[:_FIT_SHARDS]])
        with (work / "books.tmp").open("wb") as file:
            np.savez(file, **books)
        (work / "books.tmp").replace(work / "books.npz")
    with np.load(work / "books.npz") as file:
        books = dict(file)
    if len(books["sounds"]) * (len(_LEFT) + 1) > CODEBOOK_SIZE:
        raise ValueError(f"{len(books['sounds'])} sounds are too many for codebook {COMING}")
    for number in numbers:
        target = work / f"codes-{number:03d}.npy"
        if target.exists():
            continue
        codes = encode(load_shard(work, number), books)
        with (temporary := target.with_suffix(".tmp")).open("wb") as file:
            np.save(file, codes)
        temporary.replace(target)
        bits = " ".join(f"{_entropy(codes[:, level]):.1f}" for level in range(CODEBOOKS))
        print(f"shard {number}: {len(codes)} frames, bits by codebook {bits}", flush=True)


def _entropy(codes: NDArray[np.int16]) -> float:
    share = np.bincount(codes) / len(codes)
    return float(-(share[share > 0] * np.log2(share[share > 0])).sum())


if __name__ == "__main__":
    main()
