"""A bundle as a GPU gets it, but in float32: on the CPU it must give an fp32 bundle's codes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from export.checkpoint import open_checkpoint
from export.graphs.cuda.frame_unrolled import DeviceFirstCode, DeviceStep, DeviceStepOnnxConfig, frame_unrolled
from export.graphs.cuda.narrow import export_narrow, narrow
from export.graphs.cuda.pooled import pool_states
from export.graphs.first_code import FirstCodeOnnxConfig
from export.graphs.frame import frame_graph
from server.engine.bundle import OpenBundle
from server.engine.provider import open_bundle
from server.graphs.code_predictor import CodePredictor
from server.graphs.cuda.codec_decoder import PooledCodecDecoder
from server.graphs.cuda.memory import DeviceMemory
from server.graphs.memory import HostMemory
from server.graphs.session import open_session
from server.graphs.talker import Talker
from server.manifest import CODEC_TABLE, read_manifest


def unrolled_frame(checkpoint: Path, bundle: Path, folder: Path) -> Path:
    """Write the frame graph for a GPU, in float32, of a checkpoint and its fp32 bundle."""
    manifest, table = read_manifest(bundle), np.load(bundle / CODEC_TABLE)
    step = narrow(DeviceStep.from_checkpoint(open_checkpoint(str(checkpoint), revision=None)), "fp32")
    first = DeviceFirstCode(len(table), manifest.ids.codec_eos, step.groups, step.talker_hidden_size)
    parts = {"step": DeviceStepOnnxConfig(step), "first": FirstCodeOnnxConfig(first)}
    step_path, first_path = (export_narrow(name, config, folder) for name, config in parts.items())
    frame_graph(first_path, frame_unrolled(step_path, step, table), step, folder / "frame.onnx")
    return folder / "frame.onnx"


def on_a_device(bundle: Path, frame: Path, slots: int) -> OpenBundle:
    """An fp32 bundle with the frame and the memory of a GPU, the host being the device.

    Args:
        bundle: its folder.
        frame: what `unrolled_frame` wrote.
        slots: rows that can be under way at once.
    """
    opened = open_bundle(bundle, provider="cpu", threads=1, slots=slots)
    session = open_session(bundle / "talker.onnx", "cpu", 1)
    talker = Talker(session, opened.manifest.sizes, slots, DeviceMemory(session, "cpu"))
    predictor = CodePredictor(open_session(frame, "cpu", 1), talker.state)
    return dataclasses.replace(
        opened,
        talker=talker,
        code_predictor=predictor,
        codec_decoder=pooled_decoder(bundle, slots),
    )


def pooled_decoder(bundle: Path, slots: int, kept: int = 0, *, device: bool = True) -> PooledCodecDecoder:
    """The codec decoder of a bundle with its states in one buffer; whether the host is to be the device."""
    model = onnx.load(bundle / "codec_decoder.onnx")
    pool_states(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # more would wait in busy loops
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    samples_per_frame = read_manifest(bundle).sizes.codec.samples_per_frame
    memory = DeviceMemory(session, "cpu") if device else HostMemory()
    return PooledCodecDecoder(session, samples_per_frame, slots, memory, kept)
