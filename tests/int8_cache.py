"""Bundles with KV caches in 8 bits, made of others."""

from __future__ import annotations

import shutil
from pathlib import Path

from export.calibration import spoken
from export.kv_cache import try_cache
from export.publish import describe_graph, publish
from server.manifest import read_manifest


def silent(done: int, total: int) -> None:
    """Hears how far something has come, and says nothing."""


def with_int8_cache(folder: Path, place: Path) -> Path:
    """Copy a bundle to a place, and give the copy's talker a cache in 8 bits."""
    manifest = read_manifest(folder)
    place.mkdir()
    for name in manifest.files:
        shutil.copyfile(folder / name, place / name)
    try_cache(place, manifest, spoken(folder, manifest, silent), force=True)
    talker = manifest.graphs["talker"]
    graphs = manifest.graphs | {"talker": describe_graph(place / talker.file, talker.precision)}
    publish(place, manifest.model_copy(update={"graphs": graphs}), manifest.parity, silent)
    return place
