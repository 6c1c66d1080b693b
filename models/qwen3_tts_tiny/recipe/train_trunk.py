"""`python train_trunk.py WORK`: first stage of the codec decoder: up to 50 Hz, where it is asked for the spectrogram.

No audio has to be made for that, so it is quick; `trunk.csv` gets a line every 100 steps.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from codec import Codec
from speech_data import LogMel, finished_shards, load_shard

BATCH, FRAMES, CONTEXT = 16, 60, 8
"""Utterances' pieces a step, their frames, and how many of these are heard but not judged."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the codec decoder's trunk.")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    work: Path = arguments.work
    codec, mel = Codec(), LogMel()
    with np.load(work / "books.npz") as centres:
        codec.place_centres(dict(centres))
    parameters = [value for name, value in codec.named_parameters() if not name.startswith("decoder.decoder.")]
    optimizer = torch.optim.AdamW(parameters, arguments.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.rate, total_steps=arguments.steps, pct_start=0.05
    )
    draw = np.random.default_rng(0)
    numbers = [number for number in finished_shards(work) if (work / f"codes-{number:03d}.npy").exists()]
    shards = [(load_shard(work, number), np.load(work / f"codes-{number:03d}.npy")) for number in numbers]
    totals, began = np.zeros(2), time.monotonic()
    for step in range(1, arguments.steps + 1):
        shard, codes = shards[draw.integers(len(shards))]
        at = draw.integers(0, len(codes) - FRAMES, BATCH)
        wanted = mel(torch.from_numpy(np.stack([shard.crop(start, FRAMES) for start in at])))
        heard = torch.from_numpy(np.stack([codes[start : start + FRAMES].T for start in at]).astype(np.int64))
        with torch.autocast("cpu", torch.bfloat16):
            made = codec.spectrum(codec.trunk(heard)).float()
        judged = CONTEXT * wanted.shape[2] // FRAMES
        made, wanted = made[..., judged:], wanted[..., judged:]
        distance, moves = functional.l1_loss(made, wanted), functional.l1_loss(made.diff(dim=2), wanted.diff(dim=2))
        optimizer.zero_grad()
        (distance + 0.5 * moves).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        totals += [distance.item(), moves.item()]
        if step % 100 == 0:
            line = f"{step},{time.monotonic() - began:.0f}," + ",".join(f"{value:.3f}" for value in totals / 100)
            totals[:] = 0
            print(line, flush=True)
            with (work / "trunk.csv").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    torch.save(codec.state_dict(), work / "trunk.tmp")
    (work / "trunk.tmp").replace(work / "trunk.pt")


if __name__ == "__main__":
    main()
