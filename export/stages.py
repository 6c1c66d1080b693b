"""The stages of a conversion, in order; each reads the checkpoint and adds files to the output folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto
from torch import Tensor

from export.byte_rows import multiply_bytes
from export.calibration import Spoken, spoken
from export.checkpoint import Checkpoint, CheckpointError
from export.codec_precision import Chosen, export_quantised
from export.encoders_parity import encode_sample
from export.graphs.code_predictor import CodePredictorStep, CodePredictorStepOnnxConfig
from export.graphs.codec_decoder import CodecDecoder, CodecDecoderOnnxConfig
from export.graphs.codec_encoder import CodecEncoder, CodecEncoderOnnxConfig
from export.graphs.cuda.frame_unrolled import DeviceFirstCode, DeviceStep, DeviceStepOnnxConfig, frame_unrolled
from export.graphs.cuda.narrow import NARROW_TYPES, export_narrow, narrow
from export.graphs.cuda.pooled import pool_states
from export.graphs.cuda.talker import DeviceTalker, DeviceTalkerOnnxConfig
from export.graphs.cuda.widened import widen
from export.graphs.files import save_graph
from export.graphs.first_code import FirstCode, FirstCodeOnnxConfig
from export.graphs.frame import frame_graph
from export.graphs.frame_loop import frame_loop
from export.graphs.graph import export_graph
from export.graphs.speaker_encoder import SpeakerEncoder, SpeakerEncoderOnnxConfig
from export.graphs.talker import Talker, TalkerOnnxConfig
from export.halves import store_halves, store_tables_in_bfloat16
from export.kv_cache import Agreement, try_cache
from export.layer_inputs import layer_inputs
from export.parity import measure, reference
from export.publish import describe, publish
from export.quantise import PRECISIONS, GraphFormats, quantise_graph
from export.tables import write_codec_table, write_predictor_table, write_text_table, write_tokenizer
from server.engine.bundle import open_prompts
from server.engine.reference import Reference
from server.graphs.session import CPU_LACKS
from server.manifest import (
    CODEC_ENCODER,
    CODEC_TABLE,
    PREDICTOR_TABLE,
    SPEAKER_ENCODER,
    TEXT_TABLE,
    TOKENIZER,
    Manifest,
)

KVCache = Literal["auto", "float32", "int8"]
"""What the talker's KV cache is to be; `auto` is int8 where a precision has quantised weights and few codes change."""


@dataclass
class Conversion:
    """What the stages share.

    Attributes:
        checkpoint: what is converted.
        output: the folder being filled; renamed to the bundle's name at the end.
        bundle_id: the model id the server will offer.
        noise: whether the weights are random.
        precision: of the graphs.
        description: what the manifest says of the model; None is a sentence made of the checkpoint's sizes.
        alphabet: the only characters that the model was trained on; None where it reads any.
        whole_text: whether the model was trained on no text that comes while it speaks.
        validate: whether each exported graph is compared with its PyTorch module.
        kv_cache: what the talker's KV cache is to be.
        spoken: what the talker and the code predictor say, where something is calibrated with that.
        kept_codes: how many codes an int8 KV cache leaves as they are, where that was measured.
        chosen: how the codec decoder computes, where that was to be chosen; it goes into the manifest.
        parity: what the parity stage found; it goes into the manifest and the closing table.
        notes: what the user should know of, beside the closing table.
        tick: a stage's progress: so much done, of so much.
    """

    checkpoint: Checkpoint
    output: Path
    bundle_id: str
    noise: bool = False
    precision: str = "fp32"
    description: str | None = None
    alphabet: str | None = None
    whole_text: bool = False
    validate: bool = True
    kv_cache: KVCache = "auto"
    spoken: list[Spoken] = field(default_factory=list)
    kept_codes: Agreement | None = None
    chosen: Chosen | None = None
    parity: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tick: Callable[[int, int], None] = lambda done, total: None

    def layers(self, graph: str) -> int:
        """How many layers the talker or the code predictor has."""
        sizes = self.manifest().sizes
        return (sizes.talker if graph == "talker" else sizes.code_predictor).num_layers

    def manifest(self) -> Manifest:
        """The manifest as far as it is known once the graphs are there."""
        return describe(
            self.checkpoint,
            self.output,
            bundle_id=self.bundle_id,
            noise=self.noise,
            precision=self.precision,
            description=self.description,
            alphabet=self.alphabet,
            whole_text=self.whole_text,
        )


@dataclass(frozen=True)
class Stage:
    """A named step of a conversion."""

    name: str
    run: Callable[[Conversion], None]


def _tensors(context: Conversion) -> None:
    """Look for every tensor, and for values that are no numbers, before anything is computed.

    The shapes of the tables' own tensors are checked as they are read.
    """
    checkpoint = context.checkpoint
    checkpoint.check_module(Talker.on_meta(checkpoint), Talker.PREFIX)
    checkpoint.check_module(CodePredictorStep.on_meta(checkpoint), CodePredictorStep.PREFIX)
    checkpoint.check_module(CodecDecoder.on_meta(checkpoint), CodecDecoder.PREFIX, codec=True)
    if checkpoint.clones:
        checkpoint.check_module(SpeakerEncoder.on_meta(checkpoint), SpeakerEncoder.PREFIX)
        checkpoint.check_module(CodecEncoder.on_meta(checkpoint), CodecEncoder.PREFIX, codec=True)
    used = [(checkpoint.weights, Talker.PREFIX), (checkpoint.codec_weights, CodecDecoder.PREFIX)]
    if checkpoint.clones:
        used += [(checkpoint.weights, SpeakerEncoder.PREFIX), (checkpoint.codec_weights, CodecEncoder.PREFIX)]
    tensors = [(weights, name) for weights, prefix in used for name in weights.names(prefix)]
    for done, (weights, name) in enumerate(tensors, 1):
        weights.check_finite(name)
        context.tick(done, len(tensors))


def _tokenizer(context: Conversion) -> None:
    write_tokenizer(context.checkpoint, context.output / TOKENIZER)


def _tables(context: Conversion) -> None:
    write_codec_table(context.checkpoint, context.output / CODEC_TABLE)
    if context.checkpoint.clones:
        write_predictor_table(context.checkpoint, context.output / PREDICTOR_TABLE)
    write_text_table(context.checkpoint, context.output / TEXT_TABLE, context.tick)


def _talker(context: Conversion) -> None:
    if context.precision in NARROW_TYPES:
        talker = narrow(DeviceTalker.from_checkpoint(context.checkpoint), context.precision)
        export_narrow("talker", DeviceTalkerOnnxConfig(talker), context.output)
        return
    config = TalkerOnnxConfig(Talker.from_checkpoint(context.checkpoint))
    export_graph("talker", config, context.output, validate=context.validate)


def _frame(context: Conversion) -> None:
    """Code 0 and the code predictor's steps, as one graph."""
    folder, path = context.output / "parts", context.output / "code_predictor.onnx"
    folder.mkdir()
    table = np.load(context.output / CODEC_TABLE)
    end, narrowed = context.checkpoint.config["talker_config"]["codec_eos_token_id"], context.precision in NARROW_TYPES
    step = (DeviceStep if narrowed else CodePredictorStep).from_checkpoint(context.checkpoint)
    first = (DeviceFirstCode if narrowed else FirstCode)(len(table), end, step.groups, step.talker_hidden_size)
    if isinstance(step, DeviceStep):
        step = narrow(step, context.precision)
        step_path = export_narrow("step", DeviceStepOnnxConfig(step), folder)
        steps = frame_unrolled(step_path, step, table)
    else:
        step_path = export_graph("step", CodePredictorStepOnnxConfig(step), folder, validate=context.validate)
        steps = frame_loop(step_path, step, table)
    first_path = export_graph("first", FirstCodeOnnxConfig(first), folder, validate=context.validate)
    frame_graph(first_path, steps, step, path)
    if not narrowed:
        model = onnx.load(path)
        store_tables_in_bfloat16(model)
        save_graph(model, path)
    shutil.rmtree(folder)


def _quantise(context: Conversion) -> None:
    formats, narrowed = PRECISIONS.get(context.precision, {}), context.precision in NARROW_TYPES
    inputs = {} if narrowed else _inputs_of_few_bits(context, formats)
    halves = {
        "talker": context.checkpoint.weights.in_halves(Talker.PREFIX) and not narrowed,
        "code_predictor": context.checkpoint.weights.in_halves(CodePredictorStep.PREFIX) and not narrowed,
    }
    chosen = [name for name, half in halves.items() if half or name in formats]
    for done, name in enumerate(chosen, 1):
        path = context.output / f"{name}.onnx"
        model = onnx.load(path)
        if name in formats and context.precision == "w8a8":
            multiply_bytes(model)
        elif name in formats:
            stored_as, layers = TensorProto.BFLOAT16 if narrowed else TensorProto.FLOAT, context.layers(name)
            by_prefix, fed = formats[name].by_prefix(layers), inputs.pop(name, None)
            quantise_graph(model, formats[name].others, stored_as, by_prefix, fed)
        if halves[name]:
            store_halves(model)
        save_graph(model, path)
        context.tick(done, len(chosen))


def _inputs_of_few_bits(context: Conversion, formats: Mapping[str, GraphFormats]) -> dict[str, dict[str, Tensor]]:
    """What matrices of fewer than 8 bits are multiplied by, by graph and node; nothing where there are none."""

    def wanted(graph: str) -> Callable[[str], bool]:
        return lambda node: graph in formats and formats[graph].of(node).bits < 8

    if all(one.mlp.bits == one.others.bits == 8 for one in formats.values()):
        return {}
    manifest, asked = context.manifest(), {graph: wanted(graph) for graph in ("talker", "code_predictor")}
    voice = _voice_of(context, manifest)
    return layer_inputs(context.checkpoint, context.output, manifest, asked, context.tick, voice)


def _voice_of(context: Conversion, manifest: Manifest) -> Reference | None:
    """What a model that clones voices speaks with while it is measured."""
    return encode_sample(context.checkpoint).voice if manifest.clones else None


def quantises(precision: str) -> bool:
    """Whether the weights of a precision are quantised for the CPU, so that codes are not exact in any case."""
    return bool(PRECISIONS.get(precision)) and precision not in NARROW_TYPES


def _speech(context: Conversion) -> None:
    """What the next two stages are calibrated and measured with; nothing where there is nothing to calibrate."""
    if quantises(context.precision):
        manifest = context.manifest()
        context.spoken = spoken(context.output, manifest, context.tick, _voice_of(context, manifest))


def _kv_cache(context: Conversion) -> None:
    if not context.spoken or context.kv_cache == "float32":
        return
    force = context.kv_cache == "int8"
    found = context.kept_codes = try_cache(context.output, context.manifest(), context.spoken, force=force)
    if not (force or found.enough):
        context.notes.append(
            f"the KV cache stays in float32, and slower at length: in int8 {found.equal} of {found.compared} greedy "
            "codes of codebook 0 stay the same; --kv-cache int8 takes it all the same"
        )


def _codec_decoder(context: Conversion) -> None:
    def load() -> CodecDecoder:
        return CodecDecoder.from_checkpoint(context.checkpoint)

    narrowed = context.precision in NARROW_TYPES
    if context.spoken:
        codes = [one.codes for one in context.spoken]
        rate = context.manifest().sizes.codec.sample_rate
        context.chosen = export_quantised(load, codes, context.output, rate, validate=context.validate)
        context.notes += _what_is_slower(context.chosen)
        path = context.output / "codec_decoder.onnx"
    else:
        config = CodecDecoderOnnxConfig(load().for_device() if narrowed else load())
        path = export_graph("codec_decoder", config, context.output, validate=context.validate)
    halve = context.checkpoint.codec_weights.in_halves(CodecDecoder.PREFIX)
    if narrowed or halve:
        model = onnx.load(path)
        if narrowed:
            pool_states(model)
        if halve:
            store_halves(model)
        save_graph(model, path)


def _what_is_slower(chosen: Chosen) -> list[str]:
    """What the user should know of a codec decoder that is not as fast as it could be."""
    if not chosen.in_float32:
        return []
    parts = ", ".join(map(str, chosen.in_float32))
    return [f"of the codec decoder these parts stay in float32, and slower: {parts}; in 8 bits one would hear noise"]


def _encoders(context: Conversion) -> None:
    """The two encoders of a checkpoint that clones voices, in float32; nothing for another one."""
    if not context.checkpoint.clones:
        return
    speaker = SpeakerEncoderOnnxConfig(SpeakerEncoder.from_checkpoint(context.checkpoint))
    export_graph(SPEAKER_ENCODER, speaker, context.output, validate=context.validate)
    codec = CodecEncoderOnnxConfig(CodecEncoder.from_checkpoint(context.checkpoint))
    export_graph(CODEC_ENCODER, codec, context.output, validate=context.validate)


def _parity(context: Conversion) -> None:
    manifest = context.manifest()
    check_bundle(context, manifest)
    if context.chosen:
        in_float32, noise = map(str, context.chosen.in_float32), round(context.chosen.noise, 1)
        context.parity["codec_decoder"] = {"in_float32": list(in_float32), "noise_to_mask_db": noise}
    if context.kept_codes:
        kept = context.kept_codes
        kind = manifest.kv_cache
        context.parity["kv_cache"] = {"type": kind, "equal_in_int8": kept.equal, "compared": kept.compared}
    if not context.validate:
        context.parity |= {"validation": "off"}
        context.notes.append("--no-validate: no graph was compared with its PyTorch module; the table above stands")


def check_bundle(context: Conversion, manifest: Manifest) -> None:
    """Measure the parity of the bundle in `context.output` with its checkpoint.

    Raises:
        CheckpointError: the bundle was made of a checkpoint of other sizes.
    """
    if manifest.sizes != context.manifest().sizes:
        raise CheckpointError(f"{context.output.name} was not made of {context.checkpoint.name}: their sizes differ")
    prompts, codec_table = open_prompts(context.output, manifest), np.load(context.output / CODEC_TABLE)
    expected = reference(context.checkpoint, manifest, prompts, codec_table, context.tick)
    if context.precision not in CPU_LACKS:
        context.parity = measure(context.output, manifest, expected)
        return
    with TemporaryDirectory(dir=context.output.parent, prefix=".widened-") as folder:
        for graph in manifest.graphs.values():
            widen(context.output / graph.file, Path(folder, graph.file))  # what is float32 stays so
        found = measure(Path(folder), manifest, expected)
    context.parity = found | {"arithmetic": "fp32 with weights rounded to bf16: there are no CPU kernels for bf16"}


def _manifest(context: Conversion) -> None:
    publish(context.output, context.manifest(), context.parity, context.tick)


STAGES = (
    Stage("tensors", _tensors),
    Stage("tokenizer", _tokenizer),
    Stage("tables", _tables),
    Stage("talker", _talker),
    Stage("code predictor", _frame),
    Stage("quantisation", _quantise),
    Stage("speech", _speech),
    Stage("KV cache", _kv_cache),
    Stage("codec decoder", _codec_decoder),
    Stage("encoders", _encoders),
    Stage("parity", _parity),
    Stage("manifest", _manifest),
)
