"""Prompts that are too long: refused by count, with no row of a table read for them."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest
from tokenizers import Encoding

from benchmarks.hostile import Process
from server.engine.bundle import CODEC_TABLE, TEXT_TABLE, TOKENIZER
from server.engine.manner import InstructionError, PromptError
from server.engine.prompt import PromptBuilder
from server.engine.tokenizer import TextTokenizer
from server.manifest import read_manifest
from tests.bundles import RANDOM_BUNDLE

VOICE = {"speaker": "serena", "language": "english"}


class Table:
    """An embedding table that counts the rows that are looked up."""

    def __init__(self, name: str) -> None:
        self._rows = np.load(RANDOM_BUNDLE / name)
        self.read = 0

    def __getitem__(self, ids: Any) -> np.ndarray:
        self.read += np.size(ids)
        return self._rows[ids]


@pytest.mark.parametrize("instruction", [None, "Speak slowly, and with joy."])
def test_a_text_that_no_model_can_hold_is_not_embedded(instruction: str | None) -> None:
    tables = text, codec = Table(TEXT_TABLE), Table(CODEC_TABLE)
    manifest = read_manifest(RANDOM_BUNDLE).model_copy(update={"follows_instructions": True})
    prompts = PromptBuilder(manifest, TextTokenizer(RANDOM_BUNDLE / TOKENIZER), text, codec)
    limit, before = manifest.sizes.talker.max_positions, [table.read for table in tables]
    rest = len(prompts.build("", **VOICE, instruction=instruction))
    assert [table.read for table in tables] > before
    longest = "1 " * ((limit - 1 - rest) // prompts.count_tokens("1 "))
    prompt = prompts.build(longest, **VOICE, instruction=instruction)
    assert limit - prompts.count_tokens("1 ") <= len(prompt) < limit

    before = [table.read for table in tables]
    with pytest.raises(PromptError, match=r"take \d+ positions"):
        prompts.build(longest + "1 1 ", **VOICE, instruction=instruction)
    assert [table.read for table in tables] == before


def test_an_instruction_that_leaves_no_room_for_text_is_not_embedded() -> None:
    tables = text, codec = Table(TEXT_TABLE), Table(CODEC_TABLE)
    manifest = read_manifest(RANDOM_BUNDLE).model_copy(update={"follows_instructions": True})
    prompts = PromptBuilder(manifest, TextTokenizer(RANDOM_BUNDLE / TOKENIZER), text, codec, 64)
    around = len(prompts.build("", **VOICE, instruction="1")) - len(prompts.build("", **VOICE, instruction=None))
    one = prompts.count_tokens("1 ")
    most = "1 " * ((32 - around) // one)
    prompts.build("Hello", **VOICE, instruction=most)
    before = [table.read for table in tables]
    with pytest.raises(InstructionError, match=r"the instructions take \d+ positions; at most 32"):
        prompts.build("Hello", **VOICE, instruction=most + "1 1 ")
    assert [table.read for table in tables] == before


@pytest.mark.parametrize("character", ["\U0001f469", "a ", "e\u0301"])
def test_a_text_that_is_far_too_long_is_not_tokenised_to_its_end(character: str) -> None:
    tables = Table(TEXT_TABLE), Table(CODEC_TABLE)
    manifest = read_manifest(RANDOM_BUNDLE).model_copy(update={"follows_instructions": True})
    tokenizer = Asked(RANDOM_BUNDLE / TOKENIZER)
    prompts = PromptBuilder(manifest, tokenizer, *tables, 64)
    with pytest.raises(PromptError, match="more than the 64 positions"):
        prompts.build(character * 100_000, **VOICE, instruction=None)
    with pytest.raises(InstructionError, match="more than the 32 positions"):
        prompts.build("Hello", **VOICE, instruction=character * 100_000)
    assert tokenizer.most < 5_000
    assert tokenizer.asked < 20_000
    tokenizer.count(character * 100_000)
    assert tokenizer.most < 5_000


class Asked(TextTokenizer):
    """Notes the longest text that it was asked for, and how much in all."""

    most = asked = 0

    def _encoding(self, text: str) -> Encoding:
        self.most, self.asked = max(self.most, len(text)), self.asked + len(text)
        return super()._encoding(text)


class WideTable:
    """A table of a hidden size at which a position takes 64 KiB; its rows are made when they are looked up."""

    def __getitem__(self, ids: Any) -> np.ndarray:
        return np.ones((*np.shape(ids), 1 << 14), np.float32)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(("length", "instructed"), [(100_000, False), (450, False), (100_000, True), (200, True)])
def test_a_refused_prompt_takes_little_memory(length: int, instructed: bool) -> None:
    """Of what no prompt holds, and of what is known to be too long only once all of it has been tokenised."""
    manifest = read_manifest(RANDOM_BUNDLE).model_copy(update={"follows_instructions": True})
    wide: Any = WideTable()
    prompts = PromptBuilder(manifest, TextTokenizer(RANDOM_BUNDLE / TOKENIZER), wide, wide, 1024)
    rare = "\U0001f469" * length
    text, instruction = ("Hello", rare) if instructed else (rare, None)
    process = Process(os.getpid())
    process.forget_peak()
    before = process.held.all
    with pytest.raises(PromptError):
        prompts.build(text, **VOICE, instruction=instruction)
    assert process.peak - before < 64_000_000
