"""`python assemble.py WORK CHECKPOINT`: what was learned (the mean weights), as a checkpoint in the official layout."""

from __future__ import annotations

import argparse
import copy
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from layout import CODEBOOKS, SHAPE, codebook, write_documents
from tests.checkpoints import codec_config
from tests.oracle import official_package
from tokenizer import load

_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


def _codec_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and values of `speech_tokenizer/model.safetensors`; the encoder is as its class draws it."""
    official_package()
    from qwen_tts.core import Qwen3TTSTokenizerV2Config, Qwen3TTSTokenizerV2Model

    torch.manual_seed(0)
    model = Qwen3TTSTokenizerV2Model(Qwen3TTSTokenizerV2Config(**copy.deepcopy(codec_config(SHAPE))))
    learned = {name.removeprefix("decoder."): value for name, value in state.items() if name.startswith("decoder.")}
    for level in range(CODEBOOKS):
        # A usage of 1 makes the sums the vectors themselves, which half precision then holds as exactly as any weight.
        learned[f"{codebook(level)}.embedding_sum"] = state["books"][level]
        learned[f"{codebook(level)}.cluster_usage"] = torch.ones(len(state["books"][level]))
    model.decoder.load_state_dict(learned)
    return {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }


def assemble(work: Path, target: Path) -> None:
    """Write the checkpoint, over one that is there."""
    folder = target.with_name(target.name + ".part")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "speech_tokenizer").mkdir(parents=True)
    _, special = load(work)
    write_documents(folder, special)
    for name in _TOKENIZER_FILES:
        shutil.copy(work / name, folder / name)
    talker = torch.load(work / "talker.pt")["mean"]
    weights = {
        f"talker.{name.removeprefix('official.')}": value.half().contiguous()
        for name, value in talker.items()
        if name.startswith("official.")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    codec = _codec_weights(torch.load(work / "wave.pt")["mean"])
    save_file(codec, folder / "speech_tokenizer" / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(f"{target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the checkpoint.")
    parser.add_argument("work", type=Path)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    assemble(arguments.work, arguments.checkpoint)
