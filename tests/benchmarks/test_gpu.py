"""The GPU benchmark as far as the CPU goes: the whole command, on a bundle of the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import late_frames, main
from benchmarks.placement import PlacementError
from server.graphs.session import has_cuda

SMALL = ["--sizes", "tiny", "--rows", "2", "3", "--frames", "16", "--threads", "1", "--probe-bytes", "1000000"]


@pytest.fixture
def bundle(bundle_of: Callable[..., Path]) -> Callable[[str, str], Path]:
    """For each size the bundle that other tests have converted."""
    return lambda size, precision: bundle_of("short", precision)


def test_the_gpu_benchmark_runs_on_the_cpu(
    bundle: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--provider", "cpu", *SMALL], bundle) == 0
    printed = capsys.readouterr().out
    assert "no figure below is a GPU's" in printed
    assert "tiny, fp16, cpu;" in printed
    found = dict(line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| "))
    assert found["greedy codes equal to the CPU's, codebook 0"] == "32 of 32"
    assert found["nodes of talker and code predictor on CPUExecutionProvider"].startswith("all ")
    for line in ("steady frame, all stages, 1 row", "memory floor: that many bytes at that bandwidth"):
        assert float(found[line].split()[0]) >= 0
    for rows in (2, 3):
        line = found[f"{rows} rows that start at once"]
        assert "s of audio a second, p95 TTFA" in line
        assert "frames late for real time" in line


@pytest.mark.skipif(has_cuda(), reason="this ONNX Runtime has CUDA: the CPU build is meant")
def test_without_cuda_there_is_no_figure(
    bundle: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(SMALL, bundle) == 1
    captured = capsys.readouterr()
    assert "no CUDA execution provider" in captured.err
    assert " ms" not in captured.out


def test_nodes_elsewhere_end_it(
    bundle: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def astray(*arguments: object) -> int:
        raise PlacementError("not on CUDAExecutionProvider: top (TopK, CPUExecutionProvider)")

    monkeypatch.setattr(gpu, "placement", astray)
    assert main(["--provider", "cpu", *SMALL], bundle) == 1
    captured = capsys.readouterr()
    assert "error: not on CUDAExecutionProvider: top" in captured.err
    assert " ms" not in captured.out


@pytest.mark.parametrize(
    ("heard", "late"),
    [
        ([], 0),
        ([(5.0, 4)], 0),
        ([(0.0, 1), (1.0, 2), (3.0, 4)], 0),  # just in time
        ([(0.0, 1), (1.5, 2)], 1),  # the first of the two is late, the second is not yet due
        ([(0.0, 1), (9.0, 4)], 4),
    ],
)
def test_frames_that_come_after_a_player_needs_them_are_counted_late(heard: list[tuple[float, int]], late: int) -> None:
    assert late_frames(heard, 1.0) == late
