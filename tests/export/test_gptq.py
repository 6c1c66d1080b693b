"""Error feedback: the rounding against the method's definition, and what it is worth where inputs are related."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from export.gptq import DAMPING, feedback_of, round_with_feedback
from export.quantise import WeightFormat, fit_blocks, quantise_graph


def related(positions: int, inner: int, seed: int = 0) -> Tensor:
    """Inputs that lie near a space of few dimensions, as those of a trained model do."""
    random = torch.Generator().manual_seed(seed)
    few = torch.randn(positions, inner // 8, generator=random) @ torch.randn(inner // 8, inner, generator=random)
    return few + 0.3 * torch.randn(positions, inner, generator=random) + 1.0


def moments_of(inputs: Tensor) -> Tensor:
    """Second moments with their damping, in float64."""
    moments = inputs.double().T @ inputs.double()
    return moments + DAMPING * moments.diagonal().mean() * torch.eye(len(moments))


def test_the_feedback_is_a_factor_of_the_inverse_moments() -> None:
    inputs = related(300, 48)
    feedback = feedback_of(inputs).double()
    assert (feedback.tril(-1) == 0).all()
    torch.testing.assert_close(feedback.T @ feedback @ moments_of(inputs), torch.eye(48).double(), atol=2e-3, rtol=0)


def test_inputs_of_zeros_give_plain_rounding() -> None:
    torch.testing.assert_close(feedback_of(torch.zeros(3, 8)), torch.eye(8))


def test_every_input_is_rounded_where_the_ones_before_it_left_the_optimum() -> None:
    """The definition: given what is rounded, the rest is what makes the products nearest to those of the matrix."""
    inputs, step = related(200, 24, seed=1), 0.2
    weight = torch.randn(5, 24, generator=torch.Generator().manual_seed(2))
    rounded, scales = round_with_feedback(weight, inputs, 8, 4, lambda block, _: torch.full((len(block),), step))
    assert (scales == step).all() and scales.shape == (5, 3)
    found, moments = rounded.flatten(1).double() * step, moments_of(inputs)
    for index in range(24):
        error = found[:, :index] - weight[:, :index].double()
        rest = weight[:, index:].double()
        rest = rest - error @ moments[:index, index:] @ torch.linalg.inv(moments[index:, index:])
        expected = (rest[:, 0] / step).round().clamp(-8, 7) * step
        torch.testing.assert_close(found[:, index], expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_feedback_halves_the_error_of_products(bits: int) -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(3))
    inputs, others = related(1000, 256, seed=4).split(500)

    def error(q: Tensor, scales: Tensor) -> float:
        return float((others @ ((q * scales[..., None]).flatten(1) - weight).T).square().mean())

    plain = error(*fit_blocks(weight.view(64, -1, 32), bits))
    fed = error(
        *round_with_feedback(weight, inputs, 32, bits, lambda block, counts: fit_blocks(block, bits, counts)[1])
    )
    assert fed < 0.5 * plain


def test_scales_are_fitted_to_what_counts() -> None:
    blocks = torch.randn(200, 32, generator=torch.Generator().manual_seed(5))
    counts = torch.where(torch.arange(32) < 4, 100.0, 1.0)

    def error(q: Tensor, scales: Tensor) -> Tensor:
        return ((q * scales[:, None] - blocks).square() * counts).sum()

    assert error(*fit_blocks(blocks, 4, counts)) < 0.8 * error(*fit_blocks(blocks, 4))


@pytest.mark.parametrize("inner", [256, 40])
def test_onnx_runtime_reads_what_was_fed_back(inner: int) -> None:
    inputs = related(300, inner, seed=6)
    weight = np.random.default_rng(7).normal(size=(inner, 24)).astype(np.float32)
    expected = inputs.numpy() @ weight

    def error(fed: dict[str, Tensor]) -> float:
        model = product_of(weight)
        quantise_graph(model, WeightFormat(4, 64), inputs=fed)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return float(np.square(session.run(None, {"x": inputs.numpy()})[0] - expected).mean())

    assert error({"/layer/MatMul": inputs}) < 0.6 * error({})


def test_inputs_of_a_node_that_is_not_there_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"no matrix of the graph has a name that begins with /layers/MatMul"):
        quantise_graph(
            product_of(np.ones((32, 4), np.float32)), WeightFormat(4, 32), inputs={"/layers/MatMul": torch.ones(1, 32)}
        )


def product_of(weight: np.ndarray) -> onnx.ModelProto:
    """A graph of one product."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in zip("xy", weight.shape, strict=True)
    ]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="/layer/MatMul")
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
