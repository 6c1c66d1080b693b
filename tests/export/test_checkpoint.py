"""Reading checkpoints: what is refused and with which words, and that sharding changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from export.checkpoint import CheckpointError, model_id, open_checkpoint
from tests.checkpoints import SHAPES, build_checkpoint

CheckpointOf = Callable[[str], Path]


@pytest.fixture
def folder(checkpoint_of: CheckpointOf, tmp_path: Path) -> Path:
    """A checkpoint that the test may spoil."""
    return Path(shutil.copytree(checkpoint_of("tiny"), tmp_path / "my checkpoint"))


def edit(path: Path, *keys: str, value: Any) -> None:
    document = json.loads(path.read_text("utf-8"))
    section = document
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    path.write_text(json.dumps(document), "utf-8")


def test_opens_a_folder(folder: Path) -> None:
    checkpoint = open_checkpoint(str(folder))
    assert (checkpoint.name, checkpoint.revision) == ("my checkpoint", None)
    assert checkpoint.config["tts_model_type"] == "custom_voice"
    assert checkpoint.generation["max_new_tokens"] == 1024
    assert checkpoint.codec_config["decoder_config"]["num_quantizers"] == 16
    stored = load_file(folder / "model.safetensors")
    assert set(checkpoint.weights.names("")) == set(stored)
    name = "talker.model.layers.1.mlp.up_proj.weight"
    assert torch.equal(checkpoint.weights.read(name), stored[name])
    assert "decoder.pre_conv.conv.weight" in checkpoint.codec_weights
    assert "no.such.tensor" not in checkpoint.weights


def test_generation_config_may_be_absent(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    assert open_checkpoint(str(folder)).generation == {}


def test_shards_hold_the_same_tensors(tmp_path: Path) -> None:
    whole = open_checkpoint(str(build_checkpoint(tmp_path / "whole", SHAPES["tiny"])))
    parts = open_checkpoint(str(build_checkpoint(tmp_path / "parts", replace(SHAPES["tiny"], shards=4))))
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) == 4
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    names = whole.weights.names("talker.")
    assert names
    assert set(names) == set(parts.weights.names("talker."))
    assert all(torch.equal(whole.weights.read(name), parts.weights.read(name)) for name in names)


@pytest.mark.parametrize(
    "file",
    ["config.json", "vocab.json", "merges.txt", "model.safetensors", "speech_tokenizer/config.json",
     "speech_tokenizer/model.safetensors"],
)  # fmt: skip
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=rf"{file.rpartition('/')[2]} is missing in .*my checkpoint"):
        open_checkpoint(str(folder))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = build_checkpoint(tmp_path / "parts", replace(SHAPES["tiny"], shards=3))
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors is missing"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
@pytest.mark.parametrize("file", ["model.safetensors", "speech_tokenizer/model.safetensors"])
def test_a_truncated_file_is_named(folder: Path, file: str, size: int) -> None:
    path = folder / file
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=rf"{file} is truncated or damaged"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("content", ["", "{", "[1]", "\0\x01"])
def test_a_config_that_is_no_json_object_is_named(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json (cannot be read as JSON|holds no JSON object)"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("file", "keys", "value", "message"),
    [
        ("config.json", ["model_type"], "llama", "not a Qwen3-TTS checkpoint: .* model_type 'llama'"),
        ("config.json", ["tts_model_type"], "base", "base checkpoints .* are not supported yet"),
        ("config.json", ["tts_model_type"], "song", "tts_model_type 'song' is unknown"),
        ("config.json", ["tokenizer_type"], "qwen3_tts_tokenizer_25hz", "'qwen3_tts_tokenizer_25hz' is not supported"),
        ("speech_tokenizer/config.json", ["model_type"], "mimi", "model_type 'mimi'; only .*12hz"),
        ("config.json", ["talker_config"], None, "config.json has no talker_config"),
        (
            "config.json",
            ["talker_config", "hidden_size"],
            "48",
            "talker_config: hidden_size is '48', expected an integer",
        ),
        ("config.json", ["talker_config", "codec_bos_id"], None, "codec_bos_id is None"),
        ("config.json", ["talker_config", "hidden_act"], "gelu", "hidden_act 'gelu' is not supported"),
        (
            "config.json",
            ["talker_config", "rope_scaling"],
            {"rope_type": "yarn"},
            "rope_scaling .*yarn.* not supported",
        ),
        ("config.json", ["talker_config", "use_sliding_window"], True, "use_sliding_window True is not supported"),
        ("config.json", ["talker_config", "code_predictor_config", "num_key_value_heads"], 3, "num_key_value_heads 3"),
        ("config.json", ["talker_config", "num_code_groups"], 8, "has 16 codebooks of 256 codes, .* asks for 8 of 256"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    folder: Path, file: str, keys: list[str], value: object, message: str
) -> None:
    edit(folder / file, *keys, value=value)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(folder))


def test_paths_that_are_no_checkpoint(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        open_checkpoint(str(tmp_path))
    with pytest.raises(CheckpointError, match="there is no folder"):
        open_checkpoint(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match=r"config\.json is not a folder"):
        open_checkpoint(str(folder / "config.json"))
    with pytest.raises(CheckpointError, match="a revision belongs to a Hub id"):
        open_checkpoint(str(folder), revision="main")


def test_load_into_fills_a_module_in_float32(folder: Path) -> None:
    checkpoint = open_checkpoint(str(folder))
    with torch.device("meta"):
        module = nn.ModuleDict({"up_proj": nn.Linear(48, 96, bias=False), "gate_proj": nn.Linear(48, 96, bias=False)})
    checkpoint.load_into(module, "talker.model.layers.0.mlp.")
    stored = load_file(folder / "model.safetensors")
    for name, value in module.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[f"talker.model.layers.0.mlp.{name}"].float())


def test_load_into_names_missing_and_misshapen_tensors(folder: Path) -> None:
    checkpoint = open_checkpoint(str(folder))
    module = nn.ModuleDict({"up_proj": nn.Linear(48, 90, bias=False), "side_proj": nn.Linear(2, 3, bias=False)})
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_into(module, "talker.model.layers.0.mlp.")
    assert "talker.model.layers.0.mlp.up_proj.weight: expected [90, 48], found [96, 48]" in str(caught.value)
    assert "talker.model.layers.0.mlp.side_proj.weight [3, 2] is missing" in str(caught.value)


def test_a_tensor_lost_from_the_codec_is_named(folder: Path) -> None:
    path = folder / "speech_tokenizer" / "model.safetensors"
    tensors = load_file(path)
    del tensors["decoder.pre_conv.conv.bias"]
    save_file(tensors, path)
    with torch.device("meta"):
        module = nn.Conv1d(32, 40, 3)
    with pytest.raises(CheckpointError, match=r"decoder\.pre_conv\.conv\.bias \[40\] is missing"):
        open_checkpoint(str(folder)).load_into(module, "decoder.pre_conv.conv.", codec=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice", "qwen3_tts_0_6b_customvoice"),
        ("Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign", "qwen3_tts_1_7b_voicedesign"),
        ("some/where/My Voice (v2)/", "my_voice_v2"),
        ("qwen3_tts_random", "qwen3_tts_random"),
        ("语音", "model"),
    ],
)
def test_model_ids(name: str, expected: str) -> None:
    assert model_id(name) == expected


@pytest.mark.parametrize("value", [None, 8, [8, 0], ["8"]])
def test_unusable_upsampling_is_named(folder: Path, value: object) -> None:
    edit(folder / "speech_tokenizer" / "config.json", "decoder_config", "upsample_rates", value=value)
    with pytest.raises(CheckpointError, match="no usable upsample_rates"):
        open_checkpoint(str(folder))
