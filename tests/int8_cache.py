"""Bundles with KV caches of either type, made of others, whatever those have."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
from onnx import TensorProto

from export.calibration import spoken
from export.graphs.files import save_graph
from export.kv_cache import try_cache
from export.publish import describe_graph, publish
from server.manifest import Manifest, read_manifest
from tests.oracle import one_thread

QUANTISED = ("k_quant_type", "v_quant_type", "kv_cache_bit_width")
"""Attributes that `GroupQueryAttention` has for a cache in 8 bits alone."""


def silent(done: int, total: int) -> None:
    """Hears how far something has come, and says nothing."""


def with_int8_cache(folder: Path, place: Path) -> Path:
    """Copy a bundle with a float32 cache to a place, and give the copy's talker a cache in 8 bits."""
    manifest = _copied(folder, place)
    with one_thread():
        try_cache(place, manifest, spoken(folder, manifest, silent), force=True)
    return _published(place, manifest)


def with_float32_cache(folder: Path, place: Path) -> Path:
    """Copy a bundle to a place, with a float32 cache if its own is in 8 bits."""
    manifest = _copied(folder, place)
    if manifest.kv_cache == "int8":
        path = place / manifest.graphs["talker"].file
        model = onnx.load(path)
        _widen_cache(model)
        save_graph(model, path)
    return _published(place, manifest)


def _copied(folder: Path, place: Path) -> Manifest:
    manifest = read_manifest(folder)
    place.mkdir()
    for name in manifest.files:
        shutil.copyfile(folder / name, place / name)
    return manifest


def _published(place: Path, manifest: Manifest) -> Path:
    talker = manifest.graphs["talker"]
    graphs = manifest.graphs | {"talker": describe_graph(place / talker.file, talker.precision)}
    publish(place, manifest.model_copy(update={"graphs": graphs}), manifest.parity, silent)
    return place


def _widen_cache(model: onnx.ModelProto) -> None:
    """Undo `export.kv_cache.quantise_cache`, in place."""
    graph, scales = model.graph, set()
    for value in (*graph.input, *graph.output):
        if value.name.startswith(("past.", "next.")):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            scales.update(node.input[-2:])
            del node.input[-2:]
            while not node.input[-1]:
                del node.input[-1]
            kept = [one for one in node.attribute if one.name not in QUANTISED]
            del node.attribute[:]
            node.attribute.extend(kept)
    constants = [one for one in graph.initializer if one.name not in scales]
    del graph.initializer[:]
    graph.initializer.extend(constants)
