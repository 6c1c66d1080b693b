"""Qwen's real byte-level BPE vocabulary in the official file layout, from the ranks inside the `dashscope` package.

`dashscope` is installed without its dependencies and never imported: only its resource file is read.
"""

from __future__ import annotations

import base64
import functools
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
    "<think>", "</think>", "<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>",
    "<tts_text_bos_single>", "<|audio_pad|>",
)  # fmt: skip
"""In the order of their ids, which follow the last rank without a gap (151643 and up in real checkpoints)."""

ALL_RANKS = 151_643
_PLAIN_ADDED = frozenset(SPECIAL_TOKENS[14:26])  # added tokens that the real file does not mark as special
_PROMPT_WORDS = (b"assistant", b"user")  # one token each, or the prompt's positions would shift


@dataclass(frozen=True)
class Vocabulary:
    """Token strings in the byte-level alphabet and their ids, merges in rank order, ids of the special tokens."""

    ids: dict[str, int]
    merges: tuple[tuple[str, str], ...]
    special: dict[str, int]

    def write(self, folder: Path) -> None:
        """Write `vocab.json`, `merges.txt` and `tokenizer_config.json`."""
        (folder / "vocab.json").write_text(json.dumps(self.ids, ensure_ascii=False), "utf-8")
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
        added = {
            str(number): {
                "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                "special": token not in _PLAIN_ADDED,
            }
            for token, number in self.special.items()
        }  # fmt: skip
        config = {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "additional_special_tokens": [token for token in SPECIAL_TOKENS[1:] if token not in _PLAIN_ADDED],
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 131072,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), "utf-8")


@functools.cache
def _ranks() -> dict[bytes, int]:
    files = importlib.metadata.files("dashscope") or []
    found = [file for file in files if file.name == "qwen.tiktoken"]
    if not found:
        raise RuntimeError("the installed dashscope package has no qwen.tiktoken; `pip install --no-deps dashscope`")
    lines = Path(str(found[0].locate())).read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


@functools.cache
def _alphabet() -> str:
    """GPT-2's printable stand-in for each byte: itself where printable, else code points from 256 up."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    rest = iter(range(256, 512))
    return "".join(chr(byte if byte in plain else next(rest)) for byte in range(256))


def _text(token: bytes) -> str:
    return token.decode("latin-1").translate(_alphabet())


def _split(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose merge makes `token`: BPE of its bytes, stopped before the last merge."""
    rank = ranks[token]
    cuts = [
        cut
        for cut in range(1, len(token))
        if ranks.get(token[:cut], rank) < rank and ranks.get(token[cut:], rank) < rank
    ]
    if len(cuts) == 1:
        return token[: cuts[0]], token[cuts[0] :]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], ALL_RANKS))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


@functools.cache
def vocabulary(size: int = ALL_RANKS) -> Vocabulary:
    """The first `size` ranks and what the prompt's words need, renumbered without gaps; special tokens follow."""
    ranks = _ranks()
    chosen = {token for token, rank in ranks.items() if rank < size}
    pending = [word for word in _PROMPT_WORDS if word not in chosen]
    while pending:
        token = pending.pop()
        if token not in chosen:
            chosen.add(token)
            pending += _split(token, ranks)
    ordered = sorted(chosen, key=ranks.__getitem__)
    merges = tuple(tuple(map(_text, _split(token, ranks))) for token in ordered if len(token) > 1)
    return Vocabulary(
        ids={_text(token): number for number, token in enumerate(ordered)},
        merges=merges,  # type: ignore[arg-type]  # each split has two parts
        special={token: len(ordered) + number for number, token in enumerate(SPECIAL_TOKENS)},
    )
