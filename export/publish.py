"""`manifest.json`: sizes, ids, voices, graphs as their files declare them, and a hash of every file."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from pydantic import ValidationError

from export.checkpoint import Checkpoint, CheckpointError
from export.graphs.talker import MAX_POSITIONS
from export.quantise import graph_precision
from export.tables import Tick
from export.weight_reads import weight_reads
from server.errors import first_fault
from server.manifest import (
    MANIFEST_NAME,
    OLDEST_FORMAT,
    FileEntry,
    GenerationDefaults,
    Graph,
    Manifest,
    Source,
    TensorSpec,
    sha256_of,
)

_TOOLS = ("torch", "transformers", "optimum-onnx", "onnx", "numpy", "tokenizers")
_IDS = {
    "im_start": "im_start_token_id",
    "im_end": "im_end_token_id",
    "tts_bos": "tts_bos_token_id",
    "tts_eos": "tts_eos_token_id",
    "tts_pad": "tts_pad_token_id",
}
_CODEC_IDS = {
    "codec_bos": "codec_bos_id",
    "codec_eos": "codec_eos_token_id",
    "codec_pad": "codec_pad_id",
    "codec_think": "codec_think_id",
    "codec_nothink": "codec_nothink_id",
    "codec_think_bos": "codec_think_bos_id",
    "codec_think_eos": "codec_think_eos_id",
}

_NOISE = "Random weights: it makes noise, not speech. For trying the server and for its tests."
_PUBLISHED = {"0b6": ("0.6B", 1024), "1b7": ("1.7B", 2048)}
"""Names and talker hidden sizes of the published checkpoints, by their `tts_model_size`."""


def describe(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    bundle_id: str,
    noise: bool,
    precision: str,
    description: str | None = None,
    alphabet: str | None = None,
    whole_text: bool = False,
) -> Manifest:
    """The manifest of the graphs in `folder`, still without its format, file hashes and parity report.

    Args:
        checkpoint: what the bundle is made from.
        folder: holds every graph of the bundle.
        bundle_id: the model id the server will offer.
        noise: whether the weights are random, so that nothing should be expected of the sound.
        precision: of the graphs.
        description: what the model is; None is a sentence made of its sizes.
        alphabet: the only characters that it was trained on; None where it reads any.
        whole_text: whether it was trained on no text that comes while it speaks.

    Raises:
        CheckpointError: the checkpoint's configuration does not fit the manifest's models.
    """
    versions = {name: importlib.metadata.version(name) for name in _TOOLS}
    try:
        return Manifest.model_validate(
            {
                "format": OLDEST_FORMAT,
                "id": bundle_id,
                "description": description or (_NOISE if noise else description_of(checkpoint)),
                "noise": noise,
                "source": Source(model=checkpoint.name, revision=checkpoint.revision, license=checkpoint.license),
                "model_type": checkpoint.config["tts_model_type"],
                "model_size": checkpoint.config.get("tts_model_size", ""),
                "follows_instructions": _follows_instructions(checkpoint),
                "alphabet": alphabet,
                "whole_text": whole_text,
                "precision": precision,
                "sizes": _sizes(checkpoint),
                "ids": _ids(checkpoint),
                "speakers": _speakers(checkpoint),
                "languages": checkpoint.config["talker_config"]["codec_language_id"],
                "generation": _generation(checkpoint),
                "graphs": {path.stem: _graph(path, precision) for path in sorted(folder.glob("*.onnx"))},
                "files": {},
                "parity": {},
                "tools": versions | {"onnxruntime": onnxruntime.__version__},
            }
        )
    except ValidationError as error:
        path, reason = first_fault(error)
        raise CheckpointError(
            f"{checkpoint.name}: its configuration has an unusable {'.'.join(path)}: {reason}"
        ) from error


def publish(folder: Path, manifest: Manifest, parity: dict[str, Any], tick: Tick) -> None:
    """Write `manifest.json` with its format, the parity report, and size and SHA-256 of every file in `folder`.

    The exporter leaves weights readable by their owner alone; a bundle is for whoever runs the server.

    Args:
        folder: the bundle, finished but for its manifest.
        manifest: what `describe` gave.
        parity: stored as it is.
        tick: hears how many bytes of how many have been hashed.
    """
    for path in folder.iterdir():
        path.chmod(0o644)
    found = {"format": manifest.least_format, "parity": parity, "files": _files(folder, tick)}
    whole = manifest.model_copy(update=found)
    (folder / MANIFEST_NAME).write_text(whole.model_dump_json(indent=2) + "\n", "utf-8")


def describe_graph(path: Path, precision: str) -> Graph:
    """A graph's inputs and outputs, and the weight bytes of a run, read without its weights."""
    graph = onnx.load(path, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    eight_bits = precision == "fp32" and any(node.op_type in ("QLinearConv", "MatMulNBits") for node in graph.node)
    return Graph(
        file=path.name,
        precision="int8" if eight_bits else precision,
        reads=weight_reads(graph),
        inputs=tuple(_tensor(value) for value in graph.input if value.name not in stored),
        outputs=tuple(_tensor(value) for value in graph.output),
    )


def _graph(path: Path, precision: str) -> Graph:
    return describe_graph(path, graph_precision(precision, path.stem))


def _tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    return TensorSpec(
        name=value.name,
        dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
        shape=tuple(axis.dim_param or axis.dim_value for axis in kind.shape.dim),
    )


def _follows_instructions(checkpoint: Checkpoint) -> bool:
    config = checkpoint.config
    kind = config["tts_model_type"]  # the package's call for cloning takes no instruction
    return kind == "voice_design" or (kind == "custom_voice" and config.get("tts_model_size") != "0b6")


def description_of(checkpoint: Checkpoint) -> str:
    """A sentence on a checkpoint: which of the published ones, and how many speakers, languages and dialects it has."""
    config = checkpoint.config
    talker = config["talker_config"]
    # A smaller checkpoint of the same layout has a size in its config too, since the official package asks for one.
    size, hidden = _PUBLISHED.get(config.get("tts_model_size", ""), ("", 0))
    model = f"Qwen3-TTS {size}" if talker["hidden_size"] == hidden else "Qwen3-TTS"
    if config["tts_model_type"] == "voice_design":
        what = f"{model} VoiceDesign: voices from a description"
    elif config["tts_model_type"] == "base":
        what = f"{model} Base: voices of recordings"
    else:
        what = f"{model} CustomVoice: {_count(len(talker['spk_id']), 'speaker')}"
        if _follows_instructions(checkpoint):
            what += ", style by instruction"
    dialects = len(set(talker["spk_is_dialect"].values()) - {None})
    languages = len(talker["codec_language_id"]) - dialects
    spoken = " and ".join(filter(None, (_count(languages, "language"), _count(dialects, "dialect"))))
    return f"{', '.join(filter(None, (what, spoken)))}."


def _count(number: int, noun: str) -> str:
    """`1 speaker`, `9 speakers`, and nothing of none."""
    return f"{number} {noun}{'s' if number > 1 else ''}" if number else ""


def _ids(checkpoint: Checkpoint) -> dict[str, Any]:
    talker = checkpoint.config["talker_config"]
    text_side = {name: checkpoint.config[key] for name, key in _IDS.items()}
    return text_side | {name: talker[key] for name, key in _CODEC_IDS.items()}


def _speakers(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    talker = checkpoint.config["talker_config"]
    dialects = talker["spk_is_dialect"]
    return {name: {"id": number, "dialect": dialects[name]} for name, number in talker["spk_id"].items()}


def _generation(checkpoint: Checkpoint) -> dict[str, Any]:
    known = GenerationDefaults.model_fields
    return {name: value for name, value in checkpoint.generation.items() if name in known and value is not None}


def _sizes(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    talker, codec = checkpoint.config["talker_config"], checkpoint.codec_config
    predictor, decoder = talker["code_predictor_config"], codec["decoder_config"]
    return {
        "talker": {
            "hidden_size": talker["hidden_size"],
            "num_layers": talker["num_hidden_layers"],
            "num_heads": talker["num_attention_heads"],
            "num_kv_heads": talker["num_key_value_heads"],
            "head_dim": talker.get("head_dim") or talker["hidden_size"] // talker["num_attention_heads"],
            "vocab_size": talker["vocab_size"],
            "max_positions": min(talker["max_position_embeddings"], MAX_POSITIONS),
        },
        "code_predictor": {
            "hidden_size": predictor["hidden_size"],
            "num_layers": predictor["num_hidden_layers"],
            "vocab_size": predictor["vocab_size"],
            "num_code_groups": talker["num_code_groups"],
        },
        "codec": {
            "num_quantizers": decoder["num_quantizers"],
            "codebook_size": decoder["codebook_size"],
            "sample_rate": codec["output_sample_rate"],
            "samples_per_frame": codec["decode_upsample_rate"],
        },
    }


def _files(folder: Path, tick: Tick) -> dict[str, FileEntry]:
    sizes = {path: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    total, done = sum(sizes.values()), 0

    def count(block: int) -> None:
        nonlocal done
        done += block
        tick(done, total)

    return {
        path.relative_to(folder).as_posix(): FileEntry(size=size, sha256=sha256_of(path, count))
        for path, size in sizes.items()
    }
