"""`python -m benchmarks.make_checkpoint --size 0.6b FOLDER`: a random checkpoint with every size of the published ones.

Speed does not depend on what the weights are, so that one block of random numbers serves all of them; activations stay
finite and speech does not end by itself. It needs what the tests need (the official package's classes for the names).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.checkpoints import (
    CheckpointShape,
    CodecShape,
    EncoderShape,
    StackShape,
    codec_config,
    model_config,
    write_documents,
)
from tests.random_weights import Draw, empty_models, values_of

_SHARD_BYTES = 1 << 30
_BLOCK = 1_000_003  # prime, so that rows of a matrix are not copies of each other

_SMALL = CheckpointShape(
    name="0.6b",
    talker=StackShape(hidden=1024, layers=28, heads=16, kv_heads=8, head_dim=128, mlp=3072),
    predictor=StackShape(hidden=1024, layers=5, heads=16, kv_heads=8, head_dim=128, mlp=3072),
    codec=CodecShape(
        stack=StackShape(hidden=512, layers=8, heads=16, kv_heads=16, head_dim=64, mlp=1024),
        codebook_dim=512,
        latent=1024,
        decoder_dim=1536,
    ),
    text_hidden=2048,
    codebook_size=2048,
    max_positions=32768,
)
SIZES = {
    "0.6b": _SMALL,
    "0.6b-base": replace(
        _SMALL,
        name="0.6b-base",
        model_type="base",
        encoder=EncoderShape(
            stack=StackShape(hidden=512, layers=8, heads=8, kv_heads=8, head_dim=64, mlp=2048),
            filters=64,
            codebook_dim=256,
            quantizers=32,
            channels=512,
            scale=8,
            squeezed=128,
            attention=128,
        ),
        speakers=(),
    ),
    "1.7b": replace(_SMALL, name="1.7b", model_size="1b7", talker=replace(_SMALL.talker, hidden=2048, mlp=6144)),
}


class TiledDraw(Draw):
    """Normal values cut from one block, each tensor from where the last one ended."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._block = torch.randn(_BLOCK, generator=self.generator)
        self._start = 0

    def normal(self, shape: torch.Size, std: float, mean: float = 0.0) -> Tensor:
        """Values of that spread and mean, `shape`."""
        count = shape.numel()
        rolled = self._block.roll(-self._start)
        self._start = (self._start + count) % _BLOCK
        return rolled.repeat(-(-count // _BLOCK))[:count].view(shape).mul_(std).add_(mean)


def _shards(values: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    for name, value in values:
        shard[name] = value.to(torch.bfloat16)
        if sum(tensor.nbytes for tensor in shard.values()) >= _SHARD_BYTES:
            yield shard
            shard = {}
    if shard:
        yield shard


def make_checkpoint(folder: Path, shape: CheckpointShape, seed: int = 0) -> None:
    """Write the checkpoint, the model in bf16 shards of about a gigabyte, which is the memory it needs."""
    (folder / "speech_tokenizer").mkdir(parents=True)
    config, codec = model_config(shape), codec_config(shape)
    model, speech_tokenizer = empty_models(config, codec)
    draw = TiledDraw(seed)
    end = config["talker_config"]["codec_eos_token_id"]
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(_shards(values_of(model, draw)), 1):
        if head := [name for name in shard if name.endswith("codec_head.weight")]:
            shard[head[0]][end] = 0
        file = f"model-{number:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    save_file(
        dict(values_of(speech_tokenizer, draw)),
        folder / "speech_tokenizer" / "model.safetensors",
        metadata={"format": "pt"},
    )
    write_documents(folder, shape)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a full-size checkpoint with random weights.")
    parser.add_argument("--size", choices=SIZES, default="0.6b")
    parser.add_argument("folder", type=Path, help="must not exist")
    arguments = parser.parse_args()
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists")
    make_checkpoint(arguments.folder, SIZES[arguments.size])
