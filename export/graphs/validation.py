"""A graph against the module that it was exported from: one run of each on the same inputs.

Optimum's own validation compares with one absolute tolerance for all outputs. The magnitudes of a codec decoder's
carried states differ by three orders between layers and between checkpoints, and float32 rounds each in proportion to
its size, so that every tensor is compared here in proportion to its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from server.graphs.session import open_session

if TYPE_CHECKING:
    from export.graphs.graph import GraphConfig

TOLERANCE = 1e-3
"""The largest difference that is allowed, as a part of the tensor's largest magnitude. Float32 rounds to 1e-7, and
layers of large weights multiply that by up to a few hundred; a wrong graph differs by parts of the magnitude itself."""
SMALLEST_MAGNITUDE = 1e-6
"""A tensor below this counts as zeros, and its differences are compared with this."""


def magnitude(values: NDArray[Any]) -> float:
    """Largest absolute value, `SMALLEST_MAGNITUDE` at least."""
    return max(float(np.abs(values.astype(np.float64)).max(initial=0.0)), SMALLEST_MAGNITUDE)


def relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest difference as a part of the expected tensor's `magnitude`; NaN where a value is not finite.

    Both have the same shape.
    """
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return float("nan")
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max(initial=0.0)) / magnitude(expected)


def validate_graph(path: Path, config: GraphConfig) -> None:
    """Run a graph and `config.module` on the same sample inputs and compare every output.

    Floating-point outputs may differ by `TOLERANCE` of their largest magnitude; integers must be equal.

    Raises:
        ValueError: naming the outputs that differ, by how much, and what to do.
    """
    inputs = config.sample_inputs()
    with torch.inference_mode():
        results = config.module(**inputs)
    feeds: dict[str, NDArray[Any]] = {}
    for name, value in inputs.items():
        flat = config.flatten_output_collection_property(name, value) if isinstance(value, list) else {name: value}
        feeds |= {key: tensor.numpy() for key, tensor in flat.items()}
    names = list(config.outputs)
    found = open_session(path, "cpu", 0).run(names, feeds)
    expected = [result.numpy() for result in results]
    faults = [
        fault
        for name, ours, theirs in zip(names, found, expected, strict=True)
        if (fault := _fault(name, ours, theirs))
    ]
    if faults:
        more = f", and {len(faults) - 3} more outputs" if len(faults) > 3 else ""
        raise ValueError(
            f"the graph {path.stem} does not compute what PyTorch does: {'; '.join(faults[:3])}{more}. Please report "
            "this with the checkpoint's config.json; --no-validate converts without this check"
        )


def _fault(name: str, found: NDArray[Any], expected: NDArray[Any]) -> str:
    """What is wrong with an output, or nothing."""
    if found.shape != expected.shape:
        return f"{name} has the shape {list(found.shape)} instead of {list(expected.shape)}"
    if not np.isfinite(expected).all():
        return f"{name} is not finite in PyTorch itself, so that the weights are damaged or too large for float32"
    if not np.isfinite(found).all():
        return f"{name} is not finite in ONNX Runtime"
    if not np.issubdtype(expected.dtype, np.floating):
        return "" if np.array_equal(found, expected) else f"{name} differs in {(found != expected).sum()} places"
    error = relative_error(found, expected)
    if error <= TOLERANCE:
        return ""
    return f"{name} differs by {error:.1e} of its largest magnitude {magnitude(expected):.3g} (allowed: {TOLERANCE:g})"
