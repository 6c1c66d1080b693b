"""`python train_codes.py WORK`: first stage of the codec: which codes stand for which sound.

The quantizer learns with the decoder's trunk, which is asked for the spectrogram of the frame it stands in and no later
one. The first codebook is also asked for the phonemes, so that the talker's own code carries what is said. Then
`train_codes.py --encode WORK` writes `codes-n.npy` (int16 `[frames, CODEBOOKS]`) for every shard.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from codec import Codec
from layout import CODEBOOKS
from speech_data import FRAME, finished_shards, load_shard

BATCH, FRAMES = 16, 40
_FREE_STEPS = 250
"""Steps before anything is quantised: codebooks that start from an untrained encoder are left behind by it."""
_COARSE_SHARE = 0.3
"""Of the examples, that are made from their first codebooks alone, so that these carry the most."""


def train(work: Path, steps: int, peak: float) -> None:
    codec = Codec()
    parameters = [value for name, value in codec.named_parameters() if not name.startswith("decoder.decoder.")]
    optimizer = torch.optim.AdamW(parameters, peak, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.05)
    draw = np.random.default_rng(0)
    shards = [load_shard(work, number) for number in finished_shards(work)]
    totals, began = torch.zeros(4), time.monotonic()
    for step in range(1, steps + 1):
        shard = shards[draw.integers(len(shards))]
        at = draw.integers(0, shard.starts[-1] - FRAMES, BATCH)
        audio = torch.from_numpy(np.stack([shard.crop(frame, FRAMES) for frame in at]))
        audio = audio * torch.from_numpy(draw.uniform(0.7, 1.1, (BATCH, 1)).astype(np.float32))
        phones = torch.from_numpy(np.stack([shard.phones[frame : frame + FRAMES] for frame in at]))
        mel = codec.mel(audio)
        with torch.autocast("cpu", torch.bfloat16):
            vectors = codec.encoder(mel).float()
        if step > _FREE_STEPS:
            codes = codec.quantizer.encode(vectors.transpose(1, 2).flatten(0, 1), learn=True)
            codes = codes.unflatten(0, (BATCH, FRAMES)).transpose(1, 2)
            quantized, first = codec.dequantize(codes, vectors)
            if draw.random() < _COARSE_SHARE:
                quantized = codec.decoder.quantizer.rvq_first.output_proj(first)
            books = codec.quantizer.books()
            parts = [books[level][codes[:, level]].transpose(1, 2) for level in range(CODEBOOKS)]
            commitment = functional.mse_loss(vectors, parts[0]) + functional.mse_loss(vectors, sum(parts))
        else:
            first, quantizer = vectors, codec.decoder.quantizer
            quantized = quantizer.rvq_first.output_proj(vectors) + quantizer.rvq_rest.output_proj(vectors)
            commitment = vectors.square().mean() * 0.01
        with torch.autocast("cpu", torch.bfloat16):
            made = codec.spectrum(codec.trunk(quantized)).float()
        distance = functional.l1_loss(made, mel)
        moves = functional.l1_loss(made.diff(dim=2), mel.diff(dim=2))
        spoken = functional.cross_entropy(codec.phonemes(first).flatten(0, 2), phones.flatten())
        loss = distance + 0.5 * moves + 0.1 * spoken + 0.25 * commitment
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        totals += torch.tensor([distance.item(), moves.item(), spoken.item(), commitment.item()])
        if step % 100 == 0:
            used = (codec.quantizer.usage > 0.2).float().mean()
            line = f"{step},{time.monotonic() - began:.0f}," + ",".join(
                f"{value:.3f}" for value in [*totals / 100, used]
            )
            print(line, flush=True)
            with (work / "codes.csv").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            totals.zero_()
        if step % 500 == 0 or step == steps:
            temporary = work / "codes.tmp"
            torch.save(codec.state_dict(), temporary)
            temporary.replace(work / "codes.pt")


@torch.inference_mode()
def encode(work: Path) -> None:
    codec = Codec()
    codec.load_state_dict(torch.load(work / "codes.pt"))
    for number in finished_shards(work):
        target = work / f"codes-{number:03d}.npy"
        if target.exists():
            continue
        shard = load_shard(work, number)
        found = np.zeros((shard.starts[-1], CODEBOOKS), np.int16)
        size, margin = 500, 10
        for start in range(0, len(found), size):
            first, last = max(start - margin, 0), min(start + size + margin, len(found))
            vectors = codec.encoder(codec.mel(torch.from_numpy(shard.crop(first, last - first))[None]))
            codes = codec.quantizer.encode(vectors[0].T).numpy()
            found[start : start + size] = codes[start - first : start - first + size]
        with (temporary := target.with_suffix(".tmp")).open("wb") as file:
            np.save(file, found)
        temporary.replace(target)
        print(f"shard {number}: {len(found)} frames of {FRAME} samples", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Learn the codes, or write them for all the speech.")
    parser.add_argument("--encode", action="store_true")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.encode:
        encode(arguments.work)
    else:
        train(arguments.work, arguments.steps, arguments.rate)
