"""What replaces graphs and the text tokenizer's files in a bundle: two embedding tables and `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen2Tokenizer
from transformers.convert_slow_tokenizer import convert_slow_tokenizer

from export.checkpoint import Checkpoint, CheckpointError

_BLOCK = 4096  # rows projected at once: 40 MB of float32 at the real sizes

Tick = Callable[[int, int], None]


class TextProjection(nn.Module):
    """`text_projection` of the talker: text embeddings `[..., text_hidden]` to talker inputs `[..., hidden]`."""

    def __init__(self, text_hidden: int, hidden: int) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(text_hidden, text_hidden)
        self.linear_fc2 = nn.Linear(text_hidden, hidden)

    def forward(self, embeddings: Tensor) -> Tensor:
        projected: Tensor = self.linear_fc2(nn.functional.silu(self.linear_fc1(embeddings)))
        return projected


def write_text_table(checkpoint: Checkpoint, path: Path, tick: Tick) -> None:
    """Write the text embedding with `text_projection` folded in, float32 `[text_vocab, hidden]`, block by block.

    Raises:
        CheckpointError: a tensor is missing or of the wrong shape.
    """
    config = checkpoint.config["talker_config"]
    rows, text_hidden, hidden = config["text_vocab_size"], config["text_hidden_size"], config["hidden_size"]
    embedding = checkpoint.tensor("talker.model.text_embedding.weight", (rows, text_hidden))
    with torch.device("meta"):
        projection = TextProjection(text_hidden, hidden)
    checkpoint.load_into(projection, "talker.text_projection.")
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, hidden))
    with torch.inference_mode():
        for start in range(0, rows, _BLOCK):
            block = projection(embedding[start : start + _BLOCK].float())
            table[start : start + len(block)] = block.numpy()
            tick(start + len(block), rows)
    table.flush()


def write_codec_table(checkpoint: Checkpoint, path: Path) -> None:
    """Write the talker's codec embedding, float32 `[vocab, hidden]`.

    Raises:
        CheckpointError: the tensor is missing or of the wrong shape.
    """
    config = checkpoint.config["talker_config"]
    shape = (config["vocab_size"], config["hidden_size"])
    np.save(path, checkpoint.tensor("talker.model.codec_embedding.weight", shape).float().numpy())


def write_predictor_table(checkpoint: Checkpoint, path: Path) -> None:
    """Write the code predictor's embeddings of all codes but a frame's first, float32 `[(groups - 1) * codes, hidden]`.

    With the talker's own embedding of code 0 they are what the talker is fed of a frame, so also of a reference.

    Raises:
        CheckpointError: a tensor is missing or of the wrong shape.
    """
    config = checkpoint.config["talker_config"]
    size, groups = config["code_predictor_config"]["vocab_size"], config["num_code_groups"] - 1
    shape = (size, config["hidden_size"])
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(groups * size, shape[1]))
    for group in range(groups):
        name = f"talker.code_predictor.model.codec_embedding.{group}.weight"
        table[group * size : (group + 1) * size] = checkpoint.tensor(name, shape).float().numpy()
    table.flush()


def write_tokenizer(checkpoint: Checkpoint, path: Path) -> None:
    """Write the byte-level BPE of `vocab.json` and `merges.txt` without any added token.

    Control ids live in the manifest, and no spelling of a control token in user text can become one.

    Raises:
        CheckpointError: the files do not fit each other or the text embedding.
    """
    folder = checkpoint.folder
    try:
        slow = Qwen2Tokenizer(  # type: ignore[no-untyped-call]
            str(folder / "vocab.json"), str(folder / "merges.txt")
        )
        tokenizer: Tokenizer = convert_slow_tokenizer(slow)
    except Exception as error:  # tokenizers raises bare Exception, the slow tokenizer whatever its parsing meets
        raise CheckpointError(f"vocab.json and merges.txt of {folder} make no tokenizer ({error})") from error
    rows = checkpoint.config["talker_config"]["text_vocab_size"]
    if (size := tokenizer.get_vocab_size()) > rows:
        raise CheckpointError(f"vocab.json of {folder} has {size} tokens, more than the {rows} rows of text_embedding")
    tokenizer.save(str(path), pretty=False)
