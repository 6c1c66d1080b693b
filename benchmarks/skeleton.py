"""Bundles without their weights: `python -m benchmarks.skeleton strip BUNDLE FOLDER` and `... fill FOLDER BUNDLE`.

Speed does not depend on the values of weights. `strip` keeps of a bundle some megabytes: its graphs, manifest,
tokenizer and small tensors, and of each large tensor 256 of its values. `fill` makes a bundle of that on a machine that
has neither the exporter nor the Hub: each weight is one of those values, drawn at random, the same on every machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.lib import format as npy
from numpy.typing import NDArray
from onnx.external_data_helper import ExternalDataInfo

from export.graphs.files import data_path, with_subgraphs
from server.manifest import MANIFEST_NAME, TABLES, read_manifest, sha256_of

LEVELS = 256
"""Values of a tensor that are kept: as many as a byte can name."""
LARGE = 1 << 18
"""Bytes from which on a tensor is drawn; smaller ones, such as norms, are kept."""
PLAN = "skeleton.json"
_EXAMINED = 1 << 16
_ITEM_BYTES = {
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.BFLOAT16: 2,
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.UINT8: 1,
    onnx.TensorProto.INT8: 1,
}
"""Types of what may be drawn. Wider integers are places, and a kernel would write to whatever they name."""


class Drawn(NamedTuple):
    """Bytes of a file that are drawn: `size` from `start` on, as items whose bit patterns are `levels`, in hex."""

    start: int
    size: int
    levels: str


def strip(bundle: Path, folder: Path) -> None:
    """Write the skeleton of a bundle to a folder that does not exist yet."""
    manifest = read_manifest(bundle)
    folder.mkdir(parents=True)
    plan: dict[str, list[Drawn]] = {}
    for graph in manifest.graphs.values():
        shutil.copyfile(bundle / graph.file, folder / graph.file)
        weights = data_path(bundle / graph.file)
        if weights.exists():
            plan[weights.name] = [*_drawn_of_graph(bundle / graph.file)]
    for name in TABLES:
        if (bundle / name).exists():
            plan[name] = [_drawn_of_table(bundle / name)]
    for name, pieces in plan.items():
        whole = np.memmap(bundle / name, np.uint8, "r")
        with (folder / name).open("wb") as kept:
            for start, stop in _between(pieces, whole.size):
                kept.write(whole[start:stop].tobytes())
    for name in (MANIFEST_NAME, *manifest.files):
        if name not in plan and not (folder / name).exists():
            shutil.copyfile(bundle / name, folder / name)
    (folder / PLAN).write_text(json.dumps(plan), "utf-8")


def fill(folder: Path, bundle: Path) -> None:
    """Make a bundle of a skeleton; its manifest has the hashes of its own files.

    Raises:
        FileExistsError: there is a bundle.
    """
    new = bundle.with_name(f".{bundle.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # of a run that was cut off
    if bundle.exists():
        raise FileExistsError(f"{bundle} is there already")
    shutil.copytree(folder, new, ignore=shutil.ignore_patterns(PLAN))
    plan = {
        name: [Drawn(*each) for each in pieces] for name, pieces in json.loads((folder / PLAN).read_bytes()).items()
    }
    content = json.loads((new / MANIFEST_NAME).read_bytes())
    with ThreadPoolExecutor() as pool:
        tasks = []
        for name, pieces in plan.items():
            whole = np.memmap(new / f"{name}.part", np.uint8, "w+", shape=content["files"][name]["size"])
            kept, at = np.fromfile(folder / name, np.uint8), 0
            for start, stop in _between(pieces, whole.size):
                whole[start:stop] = kept[at : at + stop - start]
                at += stop - start
            tasks += [pool.submit(_draw, whole, piece, f"{name}:{piece.start}") for piece in pieces]
        for task in tasks:
            task.result()
        for name in plan:
            (new / f"{name}.part").replace(new / name)
        for name, found in zip(plan, pool.map(lambda name: sha256_of(new / name), plan), strict=True):
            content["files"][name]["sha256"] = found
    (new / MANIFEST_NAME).write_text(json.dumps(content), "utf-8")
    new.rename(bundle)


def _drawn_of_graph(path: Path) -> Iterator[Drawn]:
    model = onnx.load(path, load_external_data=False)
    whole = np.memmap(data_path(path), np.uint8, "r")
    rotary = {name for graph in with_subgraphs(model.graph) for name in _rotary_tables(graph)}
    found: dict[int, Drawn] = {}
    for graph in with_subgraphs(model.graph):
        constants = [(node.output[0], each.t) for node in graph.node for each in node.attribute if each.HasField("t")]
        for name, tensor in [*((tensor.name, tensor) for tensor in graph.initializer), *constants]:
            if tensor.data_location != onnx.TensorProto.EXTERNAL or name in rotary:
                continue
            info, item = ExternalDataInfo(tensor), _ITEM_BYTES.get(tensor.data_type)
            start, size = int(info.offset or 0), int(info.length or 0)
            if size >= LARGE and item:
                found[start] = Drawn(start, size, _levels(whole[start : start + size], item))
    return iter(sorted(found.values()))


def _rotary_tables(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        if node.op_type == "GroupQueryAttention":
            yield from node.input[7:9]


def _drawn_of_table(path: Path) -> Drawn:
    with path.open("rb") as stream:
        npy.read_magic(stream)
        shape, _, dtype = npy.read_array_header_1_0(stream)
        start = stream.tell()
    size = int(np.prod(shape)) * dtype.itemsize
    return Drawn(start, size, _levels(np.memmap(path, np.uint8, "r", start, size), dtype.itemsize))


def _levels(raw: NDArray[np.uint8], item: int) -> str:
    items = raw.view(f"u{item}")
    some = np.random.default_rng(0).choice(items.size, _EXAMINED)
    values = np.sort(items[some])
    return values[np.linspace(0, values.size - 1, LEVELS).astype(np.int64)].tobytes().hex()


def _draw(whole: NDArray[np.uint8], piece: Drawn, name: str) -> None:
    levels = np.frombuffer(bytes.fromhex(piece.levels), f"u{len(piece.levels) // 2 // LEVELS}")
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    random, step = np.random.default_rng(seed), 1 << 22
    items = whole[piece.start : piece.start + piece.size].view(levels.dtype)
    for start in range(0, items.size, step):
        part = items[start : start + step]
        part[:] = levels[np.frombuffer(random.bytes(part.size), np.uint8)]


def _between(pieces: list[Drawn], size: int) -> Iterator[tuple[int, int]]:
    """What lies between pieces, in order: first byte, and the one behind the last."""
    last = 0
    for piece in pieces:
        yield last, piece.start
        last = piece.start + piece.size
    yield last, size


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and do what they say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.skeleton", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("way", choices=["strip", "fill"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args(arguments)
    (strip if options.way == "strip" else fill)(options.source, options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
