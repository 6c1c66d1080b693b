"""Convolutions of many channels are exported over two axes, for CPUs, and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.checkpoint import open_checkpoint
from export.graphs import streaming
from export.graphs.codec_decoder import CodecDecoder, CodecDecoderOnnxConfig
from export.graphs.graph import export_graph
from export.graphs.streaming import WIDE, CausalConv
from tests.closeness import assert_close
from tests.export.causal_layers import CUTS, drawn, streamed


@settings(max_examples=20, deadline=None)
@given(
    cuts=CUTS,
    outputs=st.sampled_from([WIDE - 1, WIDE]),
    kernel=st.integers(1, 7),
    dilation=st.integers(1, 4),
    rows=st.integers(1, 3),
)
def test_a_convolution_is_the_same_however_wide(
    cuts: list[int], outputs: int, kernel: int, dilation: int, rows: int
) -> None:
    convolution = drawn(CausalConv(5, outputs, kernel, dilation), kernel)
    assert convolution.over_two_axes == (outputs == WIDE)
    x = torch.randn(rows, 5, 40)
    whole = convolution.conv(torch.nn.functional.pad(x, (convolution.context, 0)))
    assert_close(streamed(convolution, x, cuts), whole)


@pytest.mark.parametrize("for_device", [False, True])
def test_graphs_for_the_cpu_alone_have_them(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, for_device: bool
) -> None:
    """The export compares what ONNX Runtime computes with the module, in float32."""
    monkeypatch.setattr(streaming, "WIDE", 1)
    decoder = CodecDecoder.from_checkpoint(open_checkpoint(str(checkpoint_of("short"))))
    config = CodecDecoderOnnxConfig(decoder.for_device() if for_device else decoder)
    graph = onnx.load(export_graph("codec_decoder", config, tmp_path), load_external_data=False).graph
    sizes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    weights = [sizes[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    dilated = [shape for shape in weights if shape[-1] == 7 and shape[1] > 1]
    assert dilated
    assert {len(shape) for shape in dilated} == {3 if for_device else 4}
