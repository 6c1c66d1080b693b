"""`python tokenizer.py WORK`: a byte-level BPE of the training texts in Qwen's layout, with its special tokens."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.qwen_vocabulary import SPECIAL_TOKENS, Vocabulary

MERGES = 512
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer."""
_PROMPT_WORDS = ("assistant", "user")
"""Words of the prompt that must be one token each, since the prompt's positions would shift otherwise."""


def _tokenizer(ids: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train(texts: list[str]) -> Vocabulary:
    """Learn the merges, then add what turns each of the prompt's words into one token."""
    tokenizer = _tokenizer({}, [])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + MERGES, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    ids: dict[str, int] = model["vocab"]
    merges = [(left, right) for left, right in model["merges"]]
    for word in _PROMPT_WORDS:
        parts = _tokenizer(ids, merges).encode(word).tokens
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = [parts[0] + parts[1]]
            ids.setdefault(parts[0], len(ids))
    special = {token: len(ids) + number for number, token in enumerate(SPECIAL_TOKENS)}
    return Vocabulary(ids, tuple(merges), special)


def load(folder: Path) -> tuple[Tokenizer, dict[str, int]]:
    """The tokenizer of plain text, and the ids of the special tokens."""
    ids = json.loads((folder / "vocab.json").read_text("utf-8"))
    lines = (folder / "merges.txt").read_text("utf-8").splitlines()[1:]
    merges = [(left, right) for left, right in (line.split(" ") for line in lines)]
    added = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["added_tokens_decoder"]
    return _tokenizer(ids, merges), {entry["content"]: int(number) for number, entry in added.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Learn the text vocabulary.")
    parser.add_argument("work", type=Path)
    work: Path = parser.parse_args().work
    train((work / "texts.txt").read_text("utf-8").splitlines()).write(work)
