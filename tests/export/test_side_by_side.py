"""Matrices worked on side by side: results in order, one thread each, and no trace afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.quantise import WeightFormat, quantise_graph
from export.side_by_side import MOST, side_by_side


@pytest.fixture(params=[1, 3, MOST + 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many threads torch has."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_that_have_one_of_torch_each(threads: int) -> None:
    together = threading.Barrier(min(threads, MOST))

    def work(number: int) -> tuple[int, int]:
        together.wait(60)  # until as many are at work as may be
        return number, torch.get_num_threads()

    parts = range(3 * together.parties)
    assert side_by_side(work, parts) == [(number, 1) for number in parts]
    assert torch.get_num_threads() == threads


def test_an_error_is_raised_again(threads: int) -> None:
    def work(number: int) -> None:
        raise ValueError(f"part {number}")

    with pytest.raises(ValueError, match="part 0"):
        side_by_side(work, range(9))
    assert torch.get_num_threads() == threads


def test_a_graph_is_the_same_with_any_number_of_threads(threads: int) -> None:
    """Matrices of all shapes, some with inputs, keep their names and their order."""
    random = np.random.default_rng(0)
    shapes = [(int(inner), int(outputs)) for inner, outputs in random.integers(1, 9, (8, 2)) * 32]
    weights = {f"w{i}": random.normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)}
    inputs = {
        f"/{name}": torch.from_numpy(random.normal(size=(50, len(weights[name])))).float() for name in ("w2", "w5")
    }
    norm = numpy_helper.from_array(np.ones(5, np.float32), "norm")

    def quantised() -> onnx.ModelProto:
        nodes = [helper.make_node("MatMul", [f"x{name}", name], [f"y{name}"], name=f"/{name}") for name in weights]
        stored = [numpy_helper.from_array(weight, name) for name, weight in weights.items()]
        graph = helper.make_graph(nodes, "g", [], [], [*stored[:4], norm, *stored[4:]])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
        quantise_graph(model, WeightFormat(4, 32), TensorProto.FLOAT, inputs=inputs)
        return model

    found = quantised()
    torch.set_num_threads(1)
    assert found == quantised()
    expected = [f"{name}.{part}" for name in weights for part in ("q", "scales")]
    assert [one.name for one in found.graph.initializer] == [*expected[:8], "norm", *expected[8:]]
    assert [tuple(one.dims[:2]) for one in found.graph.initializer if one.name.endswith(".scales")] == [
        (outputs, inner // 32) for inner, outputs in shapes
    ]
