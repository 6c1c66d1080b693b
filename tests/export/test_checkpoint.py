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

from export.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from export.checkpoint_config import read_configs
from export.stages import STAGES, Conversion
from tests.checkpoints import SHAPES, build_checkpoint
from tests.random_shapes import as_transformers_5

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
        ("config.json", ["tts_model_type"], "base", "speaker_encoder_config: enc_dim is 1024, expected 48"),
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


@pytest.mark.parametrize("value", [None, 8, [8, 0], ["8"]])
def test_unusable_upsampling_is_named(folder: Path, value: object) -> None:
    edit(folder / "speech_tokenizer" / "config.json", "decoder_config", "upsample_rates", value=value)
    with pytest.raises(CheckpointError, match="no usable upsample_rates"):
        open_checkpoint(str(folder))


PLAIN_ROPE = {"rope_type": "default", "rope_theta": 123456.0}
SECTIONS = {
    "talker": ("config.json", "talker_config"),
    "code predictor": ("config.json", "talker_config", "code_predictor_config"),
    "codec decoder": ("speech_tokenizer/config.json", "decoder_config"),
}


def section_of(checkpoint: Checkpoint, where: str) -> dict[str, Any]:
    file, *keys = SECTIONS[where]
    section = checkpoint.config if file == "config.json" else checkpoint.codec_config
    for key in keys:
        section = section[key]
    return section


@pytest.mark.parametrize("where", SECTIONS)
@pytest.mark.parametrize("beside", [None, 10_000])
def test_rope_parameters_are_read_first(folder: Path, where: str, beside: float | None) -> None:
    file, *keys = SECTIONS[where]
    edit(folder / file, *keys, "rope_parameters", value=PLAIN_ROPE)
    edit(folder / file, *keys, "rope_theta", value=beside)
    assert section_of(open_checkpoint(str(folder)), where)["rope_theta"] == 123456.0


@pytest.mark.parametrize("where", SECTIONS)
@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "yarn", "factor": 4.0},
        {"type": "linear", "factor": 2.0},
        {"rope_type": "default", "type": "dynamic"},
        {"factor": 4.0},
        {"rope_type": "default", "partial_rotary_factor": 0.5},
        {"full_attention": {"rope_type": "default", "rope_theta": 1e4}},
        "yarn",
    ],
)
def test_other_rotary_embeddings_are_refused_wherever_they_stand(
    folder: Path, where: str, key: str, rope: object
) -> None:
    """Also beside a `rope_theta`, where a scaling could be overlooked."""
    file, *keys = SECTIONS[where]
    edit(folder / file, *keys, key, value={**rope, "rope_theta": 1e4} if isinstance(rope, dict) else rope)
    with pytest.raises(CheckpointError, match=rf"{keys[-1]}: {key} .* is not supported"):
        open_checkpoint(str(folder))


def test_a_checkpoint_of_newer_tools_is_the_same_one(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    older, newer = checkpoint_of("tiny"), as_transformers_5(checkpoint_of("tiny"), tmp_path / "newer")
    written = json.loads((newer / "config.json").read_text("utf-8"))["talker_config"]
    assert "rope_theta" not in written
    assert written["spk_id"]["ryan"] == [1269]
    found, expected = open_checkpoint(str(newer)), open_checkpoint(str(older))
    for where in SECTIONS:
        assert section_of(found, where)["rope_theta"] == section_of(expected, where)["rope_theta"]
    assert found.config["talker_config"]["spk_id"] == expected.config["talker_config"]["spk_id"]


def test_names_are_brought_to_lower_case_and_one_element_lists_unwrapped(folder: Path) -> None:
    edit(folder / "config.json", "talker_config", "spk_id", value={"Anna": [1200], "Ben B.": 1201})
    edit(folder / "config.json", "talker_config", "spk_is_dialect", value={"Anna": "Sichuan_Dialect", "Ben B.": None})
    talker = open_checkpoint(str(folder)).config["talker_config"]
    assert talker["spk_id"] == {"anna": 1200, "ben b.": 1201}
    assert talker["spk_is_dialect"] == {"anna": "sichuan_dialect", "ben b.": None}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("spk_id", {"anna": True}, "spk_id of 'anna' is True, expected an integer from 0 to 1279"),
        ("spk_id", {"anna": 99999}, "spk_id of 'anna' is 99999, expected an integer from 0 to 1279"),
        ("spk_id", {"anna": 1280}, "spk_id of 'anna' is 1280"),
        ("spk_id", {"anna": -1}, "spk_id of 'anna' is -1"),
        ("spk_id", {"anna": [1, 2]}, r"spk_id of 'anna' is \[1, 2\]"),
        ("spk_id", {"anna": "7"}, "spk_id of 'anna' is '7'"),
        ("spk_id", {"": 7}, "spk_id has the name '', which no request could ask for"),
        ("spk_id", {" ": 7}, "spk_id has the name ' '"),
        ("spk_id", {"a\n": 7}, r"spk_id has the name 'a\\n'"),
        ("spk_id", {"Anna": 7, "anna": 8}, "spk_id has 'Anna' and 'anna', which are one name"),
        ("spk_id", {"uncle fu": 7, "Uncle_Fu": 8}, "spk_id has 'uncle fu' and 'Uncle_Fu'"),
        ("spk_id", {}, "spk_id names no speaker"),
        ("spk_id", None, "spk_id names no speaker"),
        ("spk_id", ["anna"], r"spk_id is \['anna'\], expected an id for each name"),
        ("codec_language_id", {"english": 99999}, "codec_language_id of 'english' is 99999"),
        ("codec_language_id", None, "codec_language_id is None"),
        ("spk_is_dialect", {"ryan": True}, "spk_is_dialect of 'ryan' is True, expected false or one of"),
        ("spk_is_dialect", {"ryan": "false"}, "spk_is_dialect of 'ryan' is 'false'"),
        ("spk_is_dialect", {"ryan": "klingon"}, "spk_is_dialect of 'ryan' is 'klingon'.*: english, chinese"),
        ("spk_is_dialect", ["ryan"], r"spk_is_dialect is \['ryan'\]"),
        ("codec_eos_token_id", 255, "codec_eos_token_id is 255, which is a code of the codec; .* from 256 on"),
        ("codec_eos_token_id", 1280, "codec_eos_token_id is 1280, expected 0 to 1279"),
        ("codec_eos_token_id", True, "codec_eos_token_id is True, expected an integer"),
        ("num_hidden_layers", 10**9, "num_hidden_layers is 1000000000, expected 1 to 1024"),
        ("num_hidden_layers", 0, "num_hidden_layers is 0"),
        ("num_hidden_layers", 2.0, "num_hidden_layers is 2.0, expected an integer"),
        ("num_code_groups", 10**9, "num_code_groups is 1000000000"),
        ("hidden_size", 10**12, "hidden_size is 1000000000000"),
        ("head_dim", 15, "head_dim 15 is not supported"),
        ("rope_theta", float("nan"), "rope_theta is nan, expected a number above 0"),
        ("rms_norm_eps", None, "rms_norm_eps is None"),
        ("vocab_size", 9000, "vocab_size is 9000; without its 1024 reserved"),
        ("vocab_size", 1024, "vocab_size is 1024; without its 1024 reserved|codec_.* is 13"),
    ],
)
def test_a_talker_that_cannot_be_is_refused_by_name(folder: Path, key: str, value: object, message: str) -> None:
    edit(folder / "config.json", "talker_config", key, value=value)
    with pytest.raises(CheckpointError, match=rf"talker_config: {message}"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("file", "keys", "value", "message"),
    [
        ("config.json", ["tts_eos_token_id"], 10**6, "config.json: tts_eos_token_id is 1000000, expected 0 to"),
        ("config.json", ["talker_config", "code_predictor_config", "num_hidden_layers"], 10**9, "expected 1 to 1024"),
        ("speech_tokenizer/config.json", ["decoder_config", "num_hidden_layers"], 10**9, "expected 1 to 1024"),
        ("speech_tokenizer/config.json", ["decoder_config", "decoder_dim"], 8, "decoder_dim 8 cannot be halved"),
        ("speech_tokenizer/config.json", ["decoder_config", "upsample_rates"], [], "no usable upsample_rates"),
        ("speech_tokenizer/config.json", ["decode_upsample_rate"], 960, "is 960, but .* makes 1920 samples"),
    ],
)
def test_other_values_out_of_range_are_refused(
    folder: Path, file: str, keys: list[str], value: object, message: str
) -> None:
    edit(folder / file, *keys, value=value)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("where", SECTIONS)
def test_head_dim_may_be_absent(folder: Path, where: str) -> None:
    """The official package then divides, but for the code predictor, where it takes 128."""
    file, *keys = SECTIONS[where]
    edit(folder / file, *keys, "head_dim", value=None)
    section = section_of(open_checkpoint(str(folder)), where)
    divided = section["hidden_size"] // section["num_attention_heads"]
    assert section["head_dim"] == (128 if where == "code predictor" else divided)


def test_a_checkpoint_without_its_speech_tokenizer_says_where_to_get_it(folder: Path) -> None:
    shutil.rmtree(folder / "speech_tokenizer")
    with pytest.raises(CheckpointError, match=r"hf download Qwen/Qwen3-TTS-Tokenizer-12Hz --local-dir .*speech_tokeni"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (None, None),
        ("---\nlicense: apache-2.0\nlanguage: en\n---\n# A model", "apache-2.0"),
        ("---\nlanguage:\n- en\nlicense: other\n---\n", "other"),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("# A model\nlicense: mit\n", None),
    ],
)
def test_the_licence_is_what_the_card_says(folder: Path, card: str | None, expected: str | None) -> None:
    if card is not None:
        (folder / "README.md").write_text(card, "utf-8")
    assert open_checkpoint(str(folder)).license == expected


SPEAKER, ENCODER = ["speaker_encoder_config"], ["encoder_config"]


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        ([*SPEAKER, "enc_dim"], 47, "speaker_encoder_config: enc_dim is 47, expected 48"),
        ([*SPEAKER, "mel_dim"], 80, "mel_dim is 80, expected 128"),
        ([*SPEAKER, "sample_rate"], 16000, "sample_rate is 16000, expected 24000"),
        ([*SPEAKER, "enc_channels"], [16, 16], "equally many entries, at least three"),
        ([*SPEAKER, "enc_channels"], [16, 16, 16, 16, 32], "last of enc_channels must be the sum"),
        ([*SPEAKER, "enc_channels"], [16, 16, 12, 16, 44], "must be equal but for the last"),
        ([*SPEAKER, "enc_kernel_sizes"], [5, 0, 3, 3, 1], "enc_kernel_sizes is .*, expected a list of integers"),
        ([*SPEAKER, "enc_res2net_scale"], 5, "multiples of enc_res2net_scale 5"),
        (SPEAKER, 5, "speaker_encoder_config is 5, expected an object"),
        (["encode_downsample_rate"], 960, "encode_downsample_rate is 960, expected 1920"),
        (["encoder_valid_num_quantizers"], 4, "encoder_valid_num_quantizers is 4, expected 5"),
        (["input_sample_rate"], 16000, "input_sample_rate is 16000, expected 24000"),
        ([*ENCODER, "num_quantizers"], 4, "num_quantizers is 4, expected at least 5"),
        ([*ENCODER, "codebook_size"], 512, "codebook_size is 512, expected 256"),
        ([*ENCODER, "upsampling_ratios"], [8, 6, 5], "encode_downsample_rate is 1920, expected 480|_frame_rate is"),
        ([*ENCODER, "upsampling_ratios"], 8, "upsampling_ratios is 8, expected a list"),
        ([*ENCODER, "use_causal_conv"], False, "use_causal_conv is False, expected True"),
        ([*ENCODER, "pad_mode"], "reflect", "pad_mode is 'reflect', expected 'constant'"),
        ([*ENCODER, "hidden_act"], "silu", "hidden_act is 'silu', expected 'gelu'"),
        ([*ENCODER, "num_key_value_heads"], 3, "num_key_value_heads 3 is not supported"),
        ([*ENCODER, "rope_scaling"], {"rope_type": "yarn"}, "rope_scaling .*yarn.* is not supported"),
        ([*ENCODER, "rope_theta"], float("nan"), "rope_theta is nan, expected a number above 0"),
        ([*ENCODER, "num_hidden_layers"], 10**9, "num_hidden_layers is 1000000000, expected 1 to 1024"),
        ([*ENCODER, "num_filters"], "4", "num_filters is '4', expected 1 to"),
    ],
)
def test_encoders_that_the_graphs_do_not_compute_are_refused(
    checkpoint_of: CheckpointOf, tmp_path: Path, keys: list[str], value: object, message: str
) -> None:
    for file in ("config.json", "speech_tokenizer/config.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(checkpoint_of("Base") / file, tmp_path / file)
    read_configs(tmp_path)
    edit(tmp_path / ("config.json" if keys[0] == SPEAKER[0] else "speech_tokenizer/config.json"), *keys, value=value)
    with pytest.raises(CheckpointError, match=message):
        read_configs(tmp_path)


def test_what_an_encoder_does_not_say_is_as_the_package_has_it(checkpoint_of: CheckpointOf, tmp_path: Path) -> None:
    folder = checkpoint_of("Base")
    (tmp_path / "speech_tokenizer").mkdir()
    for file, keys in (
        ("config.json", [*SPEAKER, "mel_dim"]),
        ("speech_tokenizer/config.json", [*ENCODER, "kernel_size"]),
    ):
        shutil.copy(folder / file, tmp_path / file)
        edit(tmp_path / file, *keys, value=None)
    config, codec = read_configs(tmp_path)
    assert (config["speaker_encoder_config"]["mel_dim"], codec["encoder_config"]["kernel_size"]) == (128, 7)


@pytest.mark.parametrize(
    ("file", "tensor"),
    [
        ("model.safetensors", "speaker_encoder.fc.weight"),
        ("speech_tokenizer/model.safetensors", "encoder.downsample.conv.weight"),
    ],
)
def test_a_tensor_lost_from_an_encoder_is_named(
    checkpoint_of: CheckpointOf, tmp_path: Path, file: str, tensor: str
) -> None:
    folder = Path(shutil.copytree(checkpoint_of("Base"), tmp_path / "copy"))
    tensors = load_file(folder / file)
    del tensors[tensor]
    save_file(tensors, folder / file)
    checkpoint = open_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match=rf"{tensor} .* is missing"):
        STAGES[0].run(Conversion(checkpoint, tmp_path, "lacking"))
