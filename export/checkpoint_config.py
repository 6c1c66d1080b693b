"""`config.json` of a checkpoint and of its speech tokenizer: checked, and brought to one form.

Everything that can be seen in these two small files is refused here, before weights are fetched or a stage runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from export.cloning_config import complete_cloning
from export.weights import CheckpointError, read_json
from server.graphs.frame_state import RESERVED_CODES
from server.voices.profiles import normalised

CODEC_FOLDER = "speech_tokenizer"
CODEC_REPOSITORY = "Qwen/Qwen3-TTS-Tokenizer-12Hz"
"""Hub id of the speech tokenizer that all published checkpoints have in their `speech_tokenizer/`."""
_MODEL_TYPE = "qwen3_tts"
_CODEC_TYPE = "qwen3_tts_tokenizer_12hz"
_KINDS = ("custom_voice", "voice_design", "base")

_LARGEST_SIZE, _MOST_LAYERS = 1 << 24, 1024
"""Bounds far above any checkpoint, so that a slip in a file is an error and not an endless or enormous model."""
_PREDICTOR_HEAD_DIM = 128
"""What the official package takes for a code predictor whose config does not say; elsewhere it divides."""
_STACK = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
_TALKER = (*_STACK, "vocab_size", "max_position_embeddings", "text_hidden_size", "text_vocab_size")
_DECODER = (*_STACK, "codebook_dim", "codebook_size", "decoder_dim", "latent_dim", "sliding_window")
_CODEC = ("output_sample_rate", "decode_upsample_rate")
_TEXT_IDS = ("im_start_token_id", "im_end_token_id", "tts_pad_token_id", "tts_bos_token_id", "tts_eos_token_id")
_CODEC_IDS = ("codec_bos_id", "codec_eos_token_id", "codec_pad_id", "codec_think_id", "codec_nothink_id",
              "codec_think_bos_id", "codec_think_eos_id")  # fmt: skip


def read_configs(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`config.json` and `speech_tokenizer/config.json` of a checkpoint.

    In what is returned, `rope_theta` and `head_dim` stand in the talker's, code predictor's and codec decoder's
    sections, whether the files have them there, in `rope_parameters`, or not at all; `spk_id` and `codec_language_id`
    give ints by names in lower case, as the official package looks them up, and `spk_is_dialect` gives every speaker
    a language or None. A `base` checkpoint's encoders have every value, see `export.cloning_config`.

    Raises:
        CheckpointError: not a checkpoint that can be converted; naming the value and what was expected.
    """
    config = read_json(folder, "config.json")
    if config.get("model_type") != _MODEL_TYPE:
        raise CheckpointError(
            f"{folder} is not a Qwen3-TTS checkpoint: config.json says model_type {config.get('model_type')!r}, "
            f"expected {_MODEL_TYPE!r}"
        )
    kind = config.get("tts_model_type")
    if kind not in _KINDS:
        raise CheckpointError(f"config.json: tts_model_type {kind!r} is unknown; expected one of {', '.join(_KINDS)}")
    if config.get("tokenizer_type") != _CODEC_TYPE:
        raise CheckpointError(
            f"the speech tokenizer {config.get('tokenizer_type')!r} is not supported; only {_CODEC_TYPE!r} (12 Hz) is"
        )
    codec = _read_codec_config(folder)
    talker = _section(config, "talker_config", "config.json")
    predictor = _section(talker, "code_predictor_config", "config.json: talker_config")
    decoder = _section(codec, "decoder_config", f"{CODEC_FOLDER}/config.json")
    _check_sizes(talker, predictor, codec, decoder)
    _check_ids("config.json", config, _TEXT_IDS, talker["text_vocab_size"])
    _check_ids("config.json: talker_config", talker, _CODEC_IDS, talker["vocab_size"])
    reserved = talker["vocab_size"] - RESERVED_CODES
    if talker["codec_eos_token_id"] < reserved:
        raise CheckpointError(
            f"config.json: talker_config: codec_eos_token_id is {talker['codec_eos_token_id']}, which is a code of the "
            f"codec; expected one of the reserved ids from {reserved} on"
        )
    _name_voices(talker)
    if kind == "custom_voice" and not talker["spk_id"]:
        raise CheckpointError("config.json: talker_config: spk_id names no speaker, and a custom_voice needs one")
    if kind == "base":
        complete_cloning(config, codec, f"{CODEC_FOLDER}/config.json")
    return config, codec


def _read_codec_config(folder: Path) -> dict[str, Any]:
    if not (folder / CODEC_FOLDER / "config.json").exists():
        raise CheckpointError(
            f"{CODEC_FOLDER}/config.json is missing in {folder}: download the checkpoint whole, or put the speech "
            f"tokenizer there: hf download {CODEC_REPOSITORY} --local-dir {folder / CODEC_FOLDER}"
        )
    codec = read_json(folder, f"{CODEC_FOLDER}/config.json")
    if codec.get("model_type") != _CODEC_TYPE:
        raise CheckpointError(
            f"{CODEC_FOLDER}/config.json says model_type {codec.get('model_type')!r}; only {_CODEC_TYPE!r} is supported"
        )
    return codec


def _section(parent: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    section = parent.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"{where} has no {name}")
    return section


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_sizes(
    talker: dict[str, Any], predictor: dict[str, Any], codec: dict[str, Any], decoder: dict[str, Any]
) -> None:
    codec_name = f"{CODEC_FOLDER}/config.json"
    stacks = {
        "config.json: talker_config": (talker, _TALKER),
        "config.json: code_predictor_config": (predictor, (*_STACK, "vocab_size")),
        f"{codec_name}: decoder_config": (decoder, _DECODER),
    }
    for where, (section, sizes) in stacks.items():
        _normalise_stack(where, section, _PREDICTOR_HEAD_DIM if section is predictor else None)
        _check_integers(where, section, sizes, 1, _LARGEST_SIZE)
        _check_integers(where, section, ("num_hidden_layers",), 1, _MOST_LAYERS)
        _check_layers(where, section)
    _check_integers("config.json: talker_config", talker, ("num_code_groups",), 2, _MOST_LAYERS)
    _check_integers(f"{codec_name}: decoder_config", decoder, ("num_quantizers",), 2, _MOST_LAYERS)
    _check_integers(codec_name, codec, _CODEC, 1, _LARGEST_SIZE)
    if decoder["num_quantizers"] != talker["num_code_groups"] or decoder["codebook_size"] < predictor["vocab_size"]:
        raise CheckpointError(
            f"{codec_name} has {decoder['num_quantizers']} codebooks of {decoder['codebook_size']} codes, config.json "
            f"asks for {talker['num_code_groups']} of {predictor['vocab_size']}"
        )
    if not 0 < talker["vocab_size"] - RESERVED_CODES <= decoder["codebook_size"]:
        raise CheckpointError(
            f"config.json: talker_config: vocab_size is {talker['vocab_size']}; without its {RESERVED_CODES} reserved "
            f"ids these must be codes of the codec's {decoder['codebook_size']}"
        )
    factors = []
    for name in ("upsample_rates", "upsampling_ratios"):
        values = decoder.get(name)
        if not (isinstance(values, list) and values and all(_is_int(f) and 0 < f < 1 << 16 for f in values)):
            raise CheckpointError(f"{codec_name}: decoder_config has no usable {name}")
        factors += values
    if math.prod(factors) != codec["decode_upsample_rate"]:
        raise CheckpointError(
            f"{codec_name}: decode_upsample_rate is {codec['decode_upsample_rate']}, but the decoder's upsampling "
            f"makes {math.prod(factors)} samples of a frame"
        )
    if decoder["decoder_dim"] >> len(decoder["upsample_rates"]) == 0:
        raise CheckpointError(
            f"{codec_name}: decoder_config: decoder_dim {decoder['decoder_dim']} cannot be halved by each of "
            f"{len(decoder['upsample_rates'])} upsample_rates"
        )


def _check_integers(where: str, section: dict[str, Any], names: Iterable[str], low: int, high: int) -> None:
    for name in names:
        value: Any = section.get(name)
        if not _is_int(value):
            raise CheckpointError(f"{where}: {name} is {value!r}, expected an integer")
        if not low <= value <= high:
            raise CheckpointError(f"{where}: {name} is {value}, expected {low} to {high}")


def _check_ids(where: str, section: dict[str, Any], names: Iterable[str], vocabulary: int) -> None:
    _check_integers(where, section, names, 0, vocabulary - 1)


def _normalise_stack(where: str, section: dict[str, Any], head_dim: int | None) -> None:
    """Put `rope_theta` and `head_dim` where the graphs read them.

    transformers 5 writes `rope_parameters`, `{"rope_type": "default", "rope_theta": ...}`, where 4 wrote `rope_theta`
    and `rope_scaling`; what it says wins, as there.
    """
    for key in ("rope_parameters", "rope_scaling"):
        _check_rope(where, key, section.get(key))
    theta = (section.get("rope_parameters") or {}).get("rope_theta", section.get("rope_theta"))
    for name, value in (("rope_theta", theta), ("rms_norm_eps", section.get("rms_norm_eps"))):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise CheckpointError(f"{where}: {name} is {value!r}, expected a number above 0")
    section["rope_theta"] = theta
    if section.get("head_dim") is None:
        _check_integers(where, section, ("hidden_size", "num_attention_heads"), 1, _LARGEST_SIZE)
        section["head_dim"] = head_dim or section["hidden_size"] // section["num_attention_heads"]


def _check_rope(where: str, key: str, rope: object) -> None:
    """Refuse every rotary embedding but the plain one, whose M-RoPE sections make no difference to speech."""
    if rope is None:
        return
    plain_rope = isinstance(rope, dict) and all(
        (
            {rope.get("rope_type", "default"), rope.get("type", "default")} == {"default"},
            rope.get("factor") in (None, 1),
            rope.get("partial_rotary_factor") in (None, 1),
            not any(isinstance(value, dict) for value in rope.values()),  # parameters by kind of layer
        )
    )
    if not plain_rope:
        raise CheckpointError(f"{where}: {key} {rope!r} is not supported; only the default rotary embedding is")


def _check_layers(where: str, section: dict[str, Any]) -> None:
    """Refuse what the graphs do not compute rather than compute something else."""
    refused = {
        "hidden_act": section.get("hidden_act", "silu") != "silu",
        "use_sliding_window": bool(section.get("use_sliding_window")),
        "num_key_value_heads": section["num_attention_heads"] % section["num_key_value_heads"] != 0,
        "head_dim": section["head_dim"] % 2 != 0,
    }
    for key, bad in refused.items():
        if bad:
            raise CheckpointError(f"{where}: {key} {section[key]!r} is not supported")


def _name_voices(talker: dict[str, Any]) -> None:
    """Bring speakers, languages and dialects to one form, in place."""
    where = "config.json: talker_config"
    talker["spk_id"] = talker.get("spk_id") or {}
    languages = _named_ids(where, "codec_language_id", talker)
    speakers = _named_ids(where, "spk_id", talker)
    stated = talker.get("spk_is_dialect") or {}
    if not isinstance(stated, dict):
        raise CheckpointError(f"{where}: spk_is_dialect is {stated!r}, expected a language or false for each speaker")
    dialects: dict[str, str | None] = dict.fromkeys(speakers)
    for name, dialect in stated.items():
        if dialect is None or dialect is False:
            continue
        if not isinstance(dialect, str) or dialect.lower() not in languages:
            raise CheckpointError(
                f"{where}: spk_is_dialect of {name!r} is {dialect!r}, expected false or one of codec_language_id: "
                f"{', '.join(languages) or 'none'}"
            )
        dialects[name.lower()] = dialect.lower()
    talker |= {
        "codec_language_id": languages,
        "spk_id": speakers,
        "spk_is_dialect": {name: dialects[name] for name in speakers},
    }


def _named_ids(where: str, key: str, talker: dict[str, Any]) -> dict[str, int]:
    """`spk_id` or `codec_language_id`: ids by names in lower case, each name one that a request can tell apart."""
    stated = talker.get(key)
    if not isinstance(stated, dict):
        raise CheckpointError(f"{where}: {key} is {stated!r}, expected an id for each name")
    found: dict[str, int] = {}
    spelling: dict[str, str] = {}
    for name, value in stated.items():
        number = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not _is_int(number) or not 0 <= number < talker["vocab_size"]:
            raise CheckpointError(
                f"{where}: {key} of {name!r} is {value!r}, expected an integer from 0 to {talker['vocab_size'] - 1}"
            )
        spelt = normalised(name)
        if not spelt or not name.isprintable():
            raise CheckpointError(f"{where}: {key} has the name {name!r}, which no request could ask for")
        if spelt in spelling:
            raise CheckpointError(
                f"{where}: {key} has {spelling[spelt]!r} and {name!r}, which are one name to a request: capitals "
                "do not count, and blanks are underscores"
            )
        spelling[spelt] = name
        found[name.lower()] = number
    return found
