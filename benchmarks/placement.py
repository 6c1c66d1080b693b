"""Which execution provider ran each node, from ONNX Runtime's profile of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort

from server.graphs.session import Chosen, open_session

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
KERNEL_TIME = "_kernel_time"
"""How the names of events end that say how long a node took."""


class PlacementError(AssertionError):
    """A node ran elsewhere than it should."""


def node_providers(profile: Path) -> dict[str, tuple[str, str]]:
    """Operator and execution provider of each node that ran, by name.

    Args:
        profile: what `InferenceSession.end_profiling` wrote.

    Raises:
        PlacementError: no node is in it.
    """
    events = json.loads(profile.read_text("utf-8"))
    placed = {
        event["name"].removesuffix(KERNEL_TIME): (event["args"].get("op_name", ""), event["args"]["provider"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL_TIME) and "provider" in event.get("args", {})
    }
    if not placed:
        raise PlacementError(f"{profile.name} shows no node of any provider")
    return placed


def check_placement(profile: Path, device: str) -> int:
    """See that every node of a profiled run was on `device`, cpu or cuda; returns how many there were.

    Raises:
        PlacementError: naming those that were not, copies between host and device included.
    """
    placed = node_providers(profile)
    wanted = PROVIDERS[device]
    astray = [
        f"{name} ({kind}, {provider})"
        for name, (kind, provider) in placed.items()
        if provider != wanted or (device == "cuda" and kind.startswith("Memcpy"))
    ]
    if astray:
        more = f" and {len(astray) - 5} more" if len(astray) > 5 else ""
        raise PlacementError(f"not on {wanted}: {', '.join(astray[:5])}{more}")
    return len(placed)


def profiled(graph: Path, device: Chosen, feed: Mapping[str, Any]) -> int:
    """Run a graph once on `device` and `check_placement`.

    Args:
        graph: the `.onnx` file.
        device: cpu or cuda.
        feed: inputs by name: arrays, or ORT values for what NumPy has no type for.
    """
    with TemporaryDirectory() as folder:
        session = open_session(graph, device, 0, Path(folder, "profile"))
        values = {n: ort.OrtValue.ortvalue_from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in feed.items()}
        session.run_with_ort_values([output.name for output in session.get_outputs()], values)
        return check_placement(Path(session.end_profiling()), device)
