"""GPTQ: a matrix is rounded one input after the other, and what is not rounded yet makes up for each error.

The method is that of Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative
Pre-trained Transformers" (2022, arXiv:2210.17323). It looks for the rounded matrix whose products with inputs that the
model really has are nearest to those of the matrix itself. Inputs are taken in their own order, since a block of
neighbours shares a scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

DAMPING = 0.01
"""What is added to the diagonal of the inputs' second moments, as a part of its mean, as in the paper."""

FitScales = Callable[[Tensor, Tensor], Tensor]
"""Scales `[outputs]` of a block of weights `[outputs, block_size]`; the second argument is how much the squared error
of each input counts, `[block_size]`."""


def round_with_feedback(
    weight: Tensor, inputs: Tensor, block_size: int, bits: int, fit_scales: FitScales
) -> tuple[Tensor, Tensor]:
    """Round a matrix to integers, with one scale for each output and block of inputs.

    Args:
        weight: float32 `[outputs, inner]`, `inner` a multiple of `block_size`.
        inputs: what it is multiplied by, float32 `[positions, inner]`.
        block_size: inputs that share a scale.
        bits: of the integers.
        fit_scales: chooses the scales of a block, right before it is rounded.

    Returns:
        Integers in `[-2**(bits-1), 2**(bits-1) - 1]` as float32 `[outputs, blocks, block_size]`, and scales
        `[outputs, blocks]`.
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    feedback = feedback_of(inputs)
    left = weight.T.clone(memory_format=torch.contiguous_format)
    rounded, errors, scales = torch.empty_like(left), torch.empty_like(left[:block_size]), []
    for start in range(0, len(left), block_size):
        stop = start + block_size
        block, own = left[start:stop], feedback[start:stop, start:stop]
        scale = fit_scales(block.T, own.diagonal() ** -2)
        divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
        # Thousands of small operations: none of them makes a tensor of its own.
        each = zip(block.unbind(), rounded[start:stop].unbind(), errors.unbind(), own.diagonal().unbind(), strict=True)
        for index, (values, q, error, pivot) in enumerate(each, 1):
            torch.div(values, divisor, out=q).round_().clamp_(low, high)
            torch.sub(values, torch.mul(q, scale, out=error), out=error).div_(pivot)
            block[index:].addr_(own[index - 1, index:], error, alpha=-1)
        left[stop:].addmm_(feedback[start:stop, stop:].T, errors, alpha=-1)
        scales.append(scale)
    return rounded.T.reshape(len(weight), -1, block_size), torch.stack(scales, dim=1)


def feedback_of(inputs: Tensor) -> Tensor:
    """The upper triangular `U` with `U.T @ U` the inverse of the inputs' damped second moments, `[inner, inner]`.

    Row by row it holds how an error is passed on: `U[i, j] / U[i, i]` of the error of input `i` goes to input `j`.

    Args:
        inputs: `[positions, inner]`.
    """
    moments = inputs.T @ inputs
    diagonal = moments.diagonal()
    diagonal += DAMPING * diagonal.mean() if diagonal.any() else 1.0
    # With both axes turned round, the lower factor of the moments is an upper one, whose inverse is what is wanted.
    factor = torch.linalg.cholesky(moments.flip(0, 1)).flip(0, 1)
    inverse: Tensor = torch.linalg.solve_triangular(factor, torch.eye(len(factor)), upper=True)
    return inverse
