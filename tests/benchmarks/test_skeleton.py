"""Bundles without their weights: what is kept, what is drawn, and that they work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import skeleton
from benchmarks.skeleton import fill, main, strip
from server.bench.speak import speak
from server.engine.provider import open_bundle
from server.engine.synthesizer import Synthesizer
from server.graphs.checking import verify_files
from server.manifest import TABLES, read_manifest
from tests.sources import ROOT

SMALL = 1 << 12
"""Bytes from which on a tensor is drawn here: the bundles of the tests are small."""


@pytest.fixture
def bundle(bundle_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(skeleton, "LARGE", SMALL)
    return bundle_of("short", "fp16")


def tensors(graph: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(graph).graph.initializer}


def test_large_tensors_are_drawn_from_their_own_values_and_the_rest_is_kept(bundle: Path, tmp_path: Path) -> None:
    assert main(["strip", str(bundle), str(tmp_path / "small")]) == 0
    assert main(["fill", str(tmp_path / "small"), str(tmp_path / "whole")]) == 0
    manifest, drawn = read_manifest(tmp_path / "whole"), 0
    verify_files(tmp_path / "whole", manifest)
    assert manifest.sizes == read_manifest(bundle).sizes
    for graph in manifest.graphs.values():
        before, after = tensors(bundle / graph.file), tensors(tmp_path / "whole" / graph.file)
        for name, value in before.items():
            if value.nbytes < SMALL or value.dtype.kind == "i":  # a kernel writes to whatever place they name
                np.testing.assert_array_equal(after[name], value)
            else:
                assert set(np.unique(after[name])) <= set(np.unique(value))
                drawn += not np.array_equal(after[name], value)
    assert drawn > 20
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).iterdir()) for name in ("small", "whole")]
    assert sizes[0] < sizes[1]


def test_it_is_drawn_alike_everywhere_and_speaks(bundle: Path, tmp_path: Path) -> None:
    strip(bundle, tmp_path / "small")
    for name in ("one", "other"):
        fill(tmp_path / "small", tmp_path / name)
    one, other = (read_manifest(tmp_path / name) for name in ("one", "other"))
    assert one.files == other.files
    assert {*TABLES[:2]} <= one.files.keys()
    opened = open_bundle(tmp_path / "one", provider="cpu", threads=1, slots=1)
    assert speak(opened, Synthesizer(opened), 3, 0).frames > 0


def test_no_bundle_is_written_over(bundle: Path, tmp_path: Path) -> None:
    strip(bundle, tmp_path / "small")
    (tmp_path / "whole").mkdir()
    with pytest.raises(FileExistsError, match="whole is there already"):
        fill(tmp_path / "small", tmp_path / "whole")


def test_the_session_for_a_lent_gpu_runs_on_the_cpu(bundle: Path, tmp_path: Path) -> None:
    strip(bundle, tmp_path / "skeletons" / "short")
    run = subprocess.run(
        [ROOT / "benchmarks" / "gpu_session.sh", tmp_path / "skeletons", tmp_path / "results", "cpu"],
        env={**os.environ, "PYTHON": sys.executable, "ONLY": "^(placement|one|decoder)$"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["decoder.log", "one.log", "placement.log"]
    for name in ("placement", "one", "decoder"):
        assert f"== {name}: rc 0" in run.stdout
    assert "TTFA without a server, 1 row" in run.stdout
