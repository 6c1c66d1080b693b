"""A bundle as a GPU gets it, but in float32: on the CPU it must give an fp32 bundle's codes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from export.checkpoint import open_checkpoint
from export.graphs.first_code import FirstCode, FirstCodeOnnxConfig
from export.graphs.frame_unrolled import DeviceStep, DeviceStepOnnxConfig, frame_unrolled
from export.graphs.narrow import export_narrow, narrow
from export.graphs.pooled import pool_states
from server.engine.bundle import OpenBundle, open_bundle
from server.engine.frames import DeviceFrames
from server.graphs.codec_decoder import PooledCodecDecoder
from server.graphs.cuda.device_frame import DevicePredictor, DeviceTalker
from server.graphs.session import open_session
from server.manifest import CODEC_TABLE, read_manifest


def unrolled_frame(checkpoint: Path, bundle: Path, folder: Path) -> Path:
    """Write the frame graph for a GPU, in float32, of a checkpoint and its fp32 bundle."""
    manifest, table = read_manifest(bundle), np.load(bundle / CODEC_TABLE)
    step = narrow(DeviceStep.from_checkpoint(open_checkpoint(str(checkpoint), revision=None)), "fp32")
    first = FirstCode(len(table), manifest.ids.codec_eos, step.groups, step.talker_hidden_size)
    parts = {"step": DeviceStepOnnxConfig(step), "first": FirstCodeOnnxConfig(first)}
    paths = [export_narrow(name, config, folder) for name, config in parts.items()]
    frame_unrolled(*paths, step, table, folder / "frame.onnx")
    return folder / "frame.onnx"


def on_a_device(bundle: Path, frame: Path, slots: int) -> OpenBundle:
    """An fp32 bundle with the frames of a GPU, the host being the device.

    Args:
        bundle: its folder.
        frame: what `unrolled_frame` wrote.
        slots: rows that can be under way at once.
    """
    opened = open_bundle(bundle, provider="cpu", threads=1, slots=slots)
    talker = DeviceTalker(open_session(bundle / "talker.onnx", "cpu", 1), opened.manifest.sizes, slots, "cpu")
    groups = opened.manifest.sizes.code_predictor.num_code_groups
    predictor = DevicePredictor(open_session(frame, "cpu", 1), talker, groups, opened.prompts.pad)
    return dataclasses.replace(
        opened,
        talker=talker,
        code_predictor=predictor,
        codec_decoder=pooled_decoder(bundle, slots),
        frames_type=DeviceFrames,
    )


def pooled_decoder(bundle: Path, slots: int) -> PooledCodecDecoder:
    """The codec decoder of a bundle with its states in buffers, on the host."""
    model = onnx.load(bundle / "codec_decoder.onnx")
    pool_states(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return PooledCodecDecoder(session, slots, "cpu")
