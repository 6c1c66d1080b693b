"""Profiles of graphs are of sessions as the server opens them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import profile
from benchmarks.gpu import placement
from server.manifest import read_manifest
from tests.bundles import TINY_BUNDLE

ROWS, THREADS, PAST = 1, 1, 4


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """The embedded model, each file of which has two names, as where uv installs it."""
    folder = tmp_path / "linked" / TINY_BUNDLE.name
    folder.mkdir(parents=True)
    for path in TINY_BUNDLE.iterdir():
        if path.is_file():
            (folder / path.name).hardlink_to(shutil.copyfile(path, tmp_path / path.name))
    return folder


@pytest.mark.parametrize("graph", ["talker", "code_predictor", "codec_decoder"])
def test_a_bundle_whose_files_have_several_names_is_profiled(linked: Path, graph: str) -> None:
    """ONNX Runtime refuses such weights of a loop, which the server then opens a copy of."""
    times = profile.node_times(linked, graph, ROWS, THREADS, PAST)
    assert sum(count for count, _ in times.values()) > 20
    assert all(milliseconds > 0 for _, milliseconds in times.values())


def test_it_is_seen_of_such_a_bundle_where_its_nodes_run(linked: Path) -> None:
    assert placement(linked, read_manifest(linked), "cpu") > 100
