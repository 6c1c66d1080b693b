"""`python hear_codes.py WORK`: how well the teacher's codes, decoded, are understood by Whisper, beside the teacher.

What the talker cannot get better than. The utterances are of the first shard, which the talker never sees.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.recogniser import hear, word_error_rate
from codec import Codec
from speech_data import load_shard

RATE = 24_000
SHORTEST, LONGEST = 30, 75
"""Frames of the utterances that are heard."""


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description="Hear the teacher's codes.")
    parser.add_argument("--utterances", type=int, default=40)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    work: Path = arguments.work
    codec = Codec()
    codec.load_state_dict(torch.load(work / "wave.pt")["mean"])
    texts = (work / "texts.txt").read_text("utf-8").splitlines()
    shard, codes = load_shard(work, 0), np.load(work / "codes-000.npy")
    spans = zip(texts, shard.starts[:-1], shard.starts[1:], strict=False)
    chosen = [span for span in spans if SHORTEST <= span[2] - span[1] <= LONGEST][: arguments.utterances]
    said, made, taught = [], [], []
    for text, start, end in chosen:
        frames = torch.from_numpy(codes[start:end].T.astype(np.int64))[None]
        said.append(text)
        made.append(hear(codec.wave(codec.trunk(frames))[0].clamp(-1, 1).numpy(), RATE))
        taught.append(hear(shard.crop(start, end - start), RATE))
    print(f"{len(said)} utterances, word error rate: codes {word_error_rate(said, made):.1%}, "
          f"teacher {word_error_rate(said, taught):.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
