"""Causal layers with random weights, and what they make of a signal that is cut."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from export.graphs.streaming import Stream


def drawn(module: nn.Module, seed: int) -> nn.Module:
    """The module with normal weights."""
    torch.manual_seed(seed)
    for value in module.parameters():
        nn.init.normal_(value, std=0.3)
    return module.requires_grad_(False)


def streamed(module: nn.Module, x: Tensor, cuts: Sequence[int]) -> Tensor:
    """What a causal layer makes of `x`, cut at these steps."""
    past = [torch.zeros(len(x), *spec.shape) for spec in module.states("x")]
    parts = []
    for part in x.tensor_split(list(cuts), dim=2):
        stream = Stream(past)
        parts.append(module(part, stream))
        past = stream.next
    return torch.cat(parts, 2)


CUTS = st.lists(st.integers(1, 39), max_size=4, unique=True).map(sorted)
