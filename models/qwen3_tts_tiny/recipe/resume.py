"""`python resume.py CHECKPOINT WORK`: `talker.pt` and `wave.pt` out of a checkpoint, the inverse of `assemble.py`.

For training to go on where the training's own state is not at hand. The heads that training alone has begin anew;
they learn fast. Its codes must be those that the checkpoint was trained on: `books.npz` is written beside them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from codec import Codec
from layout import CODEBOOKS, codebook
from talker import Talker
from tokenizer import load

BOOKS = Path(__file__).resolve().parent / "books.npz"
"""The centres of the codes of the checkpoint that lies in this repository."""


def resumed_talker(checkpoint: Path, special: dict[str, int]) -> Talker:
    """The talker of a checkpoint."""
    talker = Talker(special)
    weights = load_file(checkpoint / "model.safetensors")
    talker.official.load_state_dict({name.removeprefix("talker."): value for name, value in weights.items()})
    return talker


def resumed_codec(checkpoint: Path) -> Codec:
    """The codec decoder of a checkpoint."""
    codec = Codec()
    weights: dict[str, Tensor] = {
        name.removeprefix("decoder."): value
        for name, value in load_file(checkpoint / "speech_tokenizer" / "model.safetensors").items()
        if name.startswith("decoder.")
    }
    codec.decoder.load_state_dict(weights)
    with torch.no_grad():
        for level in range(CODEBOOKS):
            codec.books[level] = weights[f"{codebook(level)}.embedding_sum"]
    return codec


def main() -> None:
    parser = argparse.ArgumentParser(description="Go on from a checkpoint.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    work: Path = arguments.work
    torch.manual_seed(0)
    talker = resumed_talker(arguments.checkpoint, load(arguments.checkpoint)[1])
    learned = talker.state_dict()
    torch.save({"talker": learned, "mean": learned, "step": 0}, work / "talker.pt")
    learned = resumed_codec(arguments.checkpoint).state_dict()
    torch.save({"codec": learned, "mean": learned, "step": 0}, work / "wave.pt")
    shutil.copy(BOOKS, work / "books.npz")


if __name__ == "__main__":
    main()
