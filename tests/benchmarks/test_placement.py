"""Where nodes ran: from profiles of ONNX Runtime, and from one in which a node is elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.gpu import placement
from benchmarks.placement import PROVIDERS, PlacementError, check_placement, node_providers
from server.graphs.frame_state import IDLE, control_buffer
from server.graphs.session import has_cuda
from server.manifest import read_manifest

CPU, CUDA = PROVIDERS["cpu"], PROVIDERS["cuda"]


def event(name: str, kind: str, provider: str) -> dict:
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": {"op_name": kind, "provider": provider}}


def profile(folder: Path, *events: dict) -> Path:
    path = folder / "profile.json"
    session = {"cat": "Session", "name": "model_run", "args": {}}
    path.write_text(json.dumps([session, *events]), "utf-8")
    return path


def test_every_node_of_a_frame_runs_where_it_should(bundle_of: Callable[..., Path]) -> None:
    folder = bundle_of("short", "fp16")
    assert placement(folder, read_manifest(folder), "cpu") > 200


@pytest.mark.skipif(not has_cuda(), reason="this ONNX Runtime has no CUDA execution provider")
@pytest.mark.parametrize("precision", ["bf16", "fp16", "int4_bf16"])
def test_every_node_of_a_frame_runs_on_cuda(bundle_of: Callable[..., Path], precision: str) -> None:
    folder = bundle_of("short", precision)
    assert placement(folder, read_manifest(folder), "cuda") > 200


def test_a_node_elsewhere_is_named(tmp_path: Path) -> None:
    whole = [event("a", "MatMul", CUDA), event("b", "Add", CUDA)]
    assert check_placement(profile(tmp_path, *whole), "cuda") == 2
    with pytest.raises(PlacementError, match=rf"not on {CUDA}: top \(TopK, {CPU}\)"):
        check_placement(profile(tmp_path, *whole, event("top", "TopK", CPU)), "cuda")
    with pytest.raises(PlacementError, match=r"a .MatMul, CUDA.*b .Add"):
        check_placement(profile(tmp_path, *whole), "cpu")


def test_a_copy_between_host_and_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match="MemcpyToHost"):
        check_placement(profile(tmp_path, event("copy", "MemcpyToHost", CUDA)), "cuda")


def test_a_profile_without_nodes_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match="no node"):
        check_placement(profile(tmp_path), "cpu")


def test_profiles_are_as_onnx_runtime_writes_them(tmp_path: Path, bundle_of: Callable[..., Path]) -> None:
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "p")
    folder = bundle_of("short", "fp16")
    sizes = read_manifest(folder).sizes
    groups, hidden, vocab_size = sizes.code_predictor.num_code_groups, sizes.talker.hidden_size, sizes.talker.vocab_size
    session = ort.InferenceSession(folder / "code_predictor.onnx", options, providers=[CPU])
    session.run(
        ["codes"],
        {
            "controls": control_buffer([IDLE], [np.zeros(groups, np.float32)]),
            "talker_logits": np.zeros((1, vocab_size), np.float32),
            "hidden": np.zeros((1, hidden), np.float32),
            "seen": np.zeros((1, vocab_size), bool),
            "forced_codes": np.full((1, groups), -1),
            "text_embeds": np.zeros((1, hidden), np.float32),
        },
    )
    placed = node_providers(Path(session.end_profiling()))
    assert {"GroupQueryAttention", "TopK"} <= {kind for kind, _ in placed.values()}
    assert {provider for _, provider in placed.values()} == {CPU}
