"""Tables and tokenizer of a bundle against the official package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import Qwen2TokenizerFast

from export.checkpoint import CheckpointError, open_checkpoint
from export.tables import write_codec_table, write_text_table, write_tokenizer
from tests.closeness import assert_close
from tests.hub_server import REPO, StandInHub
from tests.oracle import load_official
from tests.server.running import PATIENCE_SECONDS

CheckpointOf = Callable[[str], Path]

TEXTS = [
    "Hello, world!",
    "你好，世界。今天天气不错。",
    "### Heading\n## C# and F#, #hashtag ##define #include <stdio.h>",
    "#!/bin/bash\n#region\n# noqa: F401",
    "OpenAI's iPhone costs $1,299.00 — don't you think it's DEAR?",
    "Don'T I'LL we'Ve THEY'RE",
    "  leading,   inner \t and trailing spaces   ",
    "\n\nline\r\nbreaks\n\n\n",
    "A\u030angstro\u0308m, e\u0301te\u0301, \ufb01n",
    "हिन्दी, العربية, עברית, ไทย, 한국어, 日本語、ひらがな、カタカナ",
    "👩‍👩‍👧‍👦 🇩🇰 ☕️",
    "0123456789 3.14 1e-5 ½ ²",
    "\x00\x7f\u200b\ufeff",
    "",
]


@pytest.fixture(scope="module")
def ours(tokenizer_of: Callable[[str], Path]) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer_of("0.6B-like")))


@pytest.fixture(scope="module")
def official(checkpoint_of: CheckpointOf) -> Qwen2TokenizerFast:
    return load_official(checkpoint_of("0.6B-like")).wrapper.processor.tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_token_ids_are_the_official_ones(ours: Tokenizer, official: Qwen2TokenizerFast, text: str) -> None:
    assert ours.encode(text).ids == official(text)["input_ids"]


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60))
def test_token_ids_are_the_official_ones_for_any_text(ours: Tokenizer, official: Qwen2TokenizerFast, text: str) -> None:
    assert ours.encode(text).ids == official(text)["input_ids"]


def test_merges_that_begin_with_a_hash_are_kept(ours: Tokenizer) -> None:
    hashed = [pair for pair in json.loads(ours.to_str())["model"]["merges"] if pair[0].startswith("#")]
    assert len(hashed) == 96
    assert len(ours.encode("##").ids) == 1


@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<tts_pad>", "<think>"])
def test_control_tokens_in_text_are_text(ours: Tokenizer, official: Qwen2TokenizerFast, token: str) -> None:
    assert len(official(token)["input_ids"]) == 1
    ids = ours.encode(f"a{token}b").ids
    assert len(ids) > 3
    assert max(ids) < 151_643
    assert ours.decode(ids) == f"a{token}b"


def test_the_hub_gives_the_same_tokenizer_as_ours(ours: Tokenizer, checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    """The package's `fix_mistral_regex=True` spoils checkpoints opened as folders, and not those opened by Hub id."""
    program = (
        "import gc, json, sys\n"
        "gc.disable()\n"  # it would look for garbage in all that is loaded
        "from tests.oracle import official_package\n"
        "official_package()\n"
        "from transformers import AutoConfig, AutoProcessor\n"
        "from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSProcessor\n"
        "AutoConfig.register('qwen3_tts', Qwen3TTSConfig)\n"
        "AutoProcessor.register(Qwen3TTSConfig, Qwen3TTSProcessor)\n"
        "for source in sys.argv[2:]:\n"
        "    processor = AutoProcessor.from_pretrained(source, fix_mistral_regex=True)\n"
        "    print('ids', json.dumps(processor(text=sys.argv[1])['input_ids'][0]))\n"
    )
    text, folder = "OpenAI's iPhone and eBay", checkpoint_of("0.6B-like")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with StandInHub(folder) as hub:
        result = subprocess.run(
            [sys.executable, "-c", program, text, REPO, str(folder)],
            env=environment | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")},
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
    lines = [line.removeprefix("ids ") for line in result.stdout.splitlines() if line.startswith("ids ")]
    assert len(lines) == 2, result.stderr
    by_hub_id, by_folder = map(json.loads, lines)
    assert by_hub_id == ours.encode(text).ids
    assert by_hub_id != by_folder


@pytest.mark.parametrize("shape", ["0.6B-like", "1.7B-like", "odd"])
def test_the_text_table_is_the_projected_embedding(checkpoint_of: CheckpointOf, tmp_path: Path, shape: str) -> None:
    folder, ticks = checkpoint_of(shape), []
    write_text_table(open_checkpoint(str(folder)), tmp_path / "t.npy", lambda done, total: ticks.append((done, total)))
    table = np.load(tmp_path / "t.npy", mmap_mode="r")
    talker = load_official(folder).talker
    rows = [row for row in (0, 1, 4095, 4096, 4097, 77_091, 151_645, 151_672) if row < len(table)] + [len(table) - 1]
    with torch.inference_mode():
        expected = talker.text_projection(talker.get_text_embeddings()(torch.tensor(rows))).numpy()
    assert table.dtype == np.float32
    assert table.shape == (talker.config.text_vocab_size, talker.config.hidden_size)
    assert_close(table[rows], expected)
    assert ticks[-1] == (len(table), len(table))


def test_the_codec_table_is_the_embedding(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    folder = checkpoint_of("1.7B-like")
    write_codec_table(open_checkpoint(str(folder)), tmp_path / "codec_embedding.npy")
    table = np.load(tmp_path / "codec_embedding.npy")
    expected = load_official(folder).talker.get_input_embeddings().weight.detach().numpy()
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, expected)


def test_a_damaged_vocabulary_is_refused(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.symlink_to(checkpoint_of("tiny"))
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    for entry in folder.iterdir():
        (spoiled / entry.name).symlink_to(entry)
    (spoiled / "vocab.json").unlink()
    (spoiled / "vocab.json").write_text('{"a": 0}', "utf-8")
    with pytest.raises(CheckpointError, match=r"vocab\.json and merges\.txt of .* make no tokenizer"):
        write_tokenizer(open_checkpoint(str(spoiled)), tmp_path / "tokenizer.json")
