"""Bundles whose graphs are changed: the committed bundle of random weights made to misbehave, others made older."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from server.graphs.cuda.codec_decoder import PAST_STATES
from server.manifest import MANIFEST_NAME, read_manifest, sha256_of
from tests.bundles import RANDOM_BUNDLE

Rig = Literal["never ends", "loops", "silent", "ends at once"]
CERTAIN = 1e4
"""Added to a logit, it makes this one certain; subtracted, it makes it impossible."""


def rigged_bundle(folder: Path, rig: Rig) -> Path:
    """Write a bundle into `folder`, made anew, and return it.

    Args:
        folder: its name is the model's id.
        rig: `never ends` never ends speech by itself, nor do the next two; `loops` has but one codec frame to say,
            `silent` makes samples of 0; `ends at once` ends after the two frames that every row makes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(RANDOM_BUNDLE, folder)
    manifest = read_manifest(folder)
    bias = np.zeros(manifest.sizes.talker.vocab_size, np.float32)
    bias[manifest.ids.codec_eos] = CERTAIN if rig == "ends at once" else -CERTAIN
    if rig == "loops":
        bias[7] = CERTAIN
        _change(folder / "code_predictor.onnx", "codes", "Mul", np.zeros(1, np.int64))
    if rig == "silent":
        _change(folder / "codec_decoder.onnx", "waveform", "Mul", np.zeros(1, np.float32))
    _change(folder / "talker.onnx", "logits", "Add", bias)
    _vouch(folder)
    return folder


def with_states_of_another_version(bundle: Path, folder: Path) -> Path:
    """Copy a bundle for a GPU into `folder`, its codec decoder having no buffer of all states, and return it."""
    shutil.copytree(bundle, folder)
    path, manifest = folder / "codec_decoder.onnx", folder / MANIFEST_NAME
    model = onnx.load(path, load_external_data=False)
    for value in model.graph.input:
        value.name = value.name.replace(PAST_STATES, "past.another")
    for node in model.graph.node:
        node.input[:] = [name.replace(PAST_STATES, "past.another") for name in node.input]
    onnx.save(model, path)
    manifest.write_text(manifest.read_text("utf-8").replace(PAST_STATES, "past.another"), "utf-8")
    _vouch(folder)
    return folder


def _change(path: Path, output: str, operator: str, operand: np.ndarray) -> None:
    """Put `operator` with a constant behind an output of a graph."""
    model = onnx.load(path, load_external_data=False)
    maker = next(node for node in model.graph.node if output in node.output)
    maker.output[list(maker.output).index(output)] = f"{output}.plain"
    for node in model.graph.node:
        node.input[:] = [f"{output}.plain" if name == output else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(operand, f"{output}.operand"))
    model.graph.node.append(helper.make_node(operator, [f"{output}.plain", f"{output}.operand"], [output]))
    onnx.save(model, path)


def _vouch(folder: Path) -> None:
    """Bring sizes and hashes of the manifest up to date."""
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_text("utf-8"))
    for name, entry in manifest["files"].items():
        entry["size"], entry["sha256"] = (folder / name).stat().st_size, sha256_of(folder / name)
    path.write_text(json.dumps(manifest), "utf-8")
