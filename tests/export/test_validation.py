"""The comparison of a graph with its module: in proportion to each tensor, and with words that help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from transformers import PretrainedConfig

from export.graphs.graph import Axes, GraphConfig, export_graph
from export.graphs.validation import TOLERANCE, relative_error, validate_graph


class Scaled(nn.Module):
    """What it is given, times a weight each, and the place of the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PretrainedConfig()
        self.output_weight, self.state_weight = (nn.Parameter(torch.ones(8), requires_grad=False) for _ in range(2))

    def forward(self, x: Tensor, past: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        y = x * self.output_weight
        return y, y.argmax(-1), past[0] * self.state_weight


class ScaledOnnxConfig(GraphConfig):
    module: Scaled

    @property
    def inputs(self) -> Axes:
        return {"x": {0: "rows"}, "past.state": {0: "rows"}}

    @property
    def outputs(self) -> Axes:
        return {"y": {0: "rows"}, "best": {0: "rows"}, "next.state": {0: "rows"}}

    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        draw = torch.Generator().manual_seed(0)
        return {"x": torch.randn(2, 8, generator=draw), "past": [torch.randn(2, 8, generator=draw)]}


def exported(folder: Path, scale: float = 1.0) -> tuple[Path, ScaledOnnxConfig]:
    """A graph whose values are about that large, and what it was exported from."""
    config = ScaledOnnxConfig(Scaled())
    config.module.output_weight *= scale
    config.module.state_weight *= scale
    return export_graph("scaled", config, folder), config


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_it_is_the_part_that_counts(tmp_path: Path, scale: float) -> None:
    path, config = exported(tmp_path, scale)
    config.module.state_weight *= 1 + 0.3 * TOLERANCE
    validate_graph(path, config)
    config.module.state_weight *= 1 + 3 * TOLERANCE
    with pytest.raises(ValueError, match=r"graph scaled .*: next\.state differs by 3\.\de-03 .*allowed: 0\.001"):
        validate_graph(path, config)


def test_zeros_are_equal_and_next_to_nothing_is_not_compared_with_nothing() -> None:
    zeros = np.zeros(3, np.float32)
    assert relative_error(zeros, zeros) == 0
    assert relative_error(zeros + 1e-12, zeros) < TOLERANCE < relative_error(zeros + 1e-3, zeros)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_never_right(tmp_path: Path, value: float) -> None:
    path, config = exported(tmp_path)
    config.module.state_weight[3] = value
    with pytest.raises(ValueError, match=r"next\.state is not finite in PyTorch itself"):
        validate_graph(path, config)
    config.module.state_weight[3] = 1
    model = onnx.load(path)
    for weight in model.graph.initializer:
        if list(weight.dims) == [8]:
            weight.CopyFrom(numpy_helper.from_array(np.full(8, value, np.float32), weight.name))
    onnx.save(model, path)
    with pytest.raises(ValueError, match="is not finite in ONNX Runtime"):
        validate_graph(path, config)
    bad = np.array([value, 1], np.float32)
    assert not relative_error(bad, bad) <= TOLERANCE


def test_every_fault_is_told_and_what_to_do(tmp_path: Path) -> None:
    path, config = exported(tmp_path)
    config.module.output_weight *= -2
    config.module.state_weight *= 2
    with pytest.raises(ValueError, match=r"y differs by .*; best differs in \d places; next\.state .*--no-validate"):
        validate_graph(path, config)
    config.module.state_weight = nn.Parameter(torch.ones(3, 2, 8), requires_grad=False)
    with pytest.raises(ValueError, match=r"next\.state has the shape \[2, 8\] instead of \[3, 2, 8\]"):
        validate_graph(path, config)
