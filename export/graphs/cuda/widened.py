"""A narrow graph in float32, for execution providers whose kernels lack bf16 and fp16; without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from export.graphs.files import save_graph, with_subgraphs

_NARROW = (TensorProto.BFLOAT16, TensorProto.FLOAT16)


def widen(path: Path, target: Path) -> None:
    """Write a graph as it is, but in float32: values stay rounded to what they were, arithmetic is float32's."""
    model = onnx.load(path)
    for graph in with_subgraphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            kind = value.type.tensor_type
            kind.elem_type = TensorProto.FLOAT if kind.elem_type in _NARROW else kind.elem_type
        for tensor in graph.initializer:
            _widen(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _NARROW:
                    attribute.i = TensorProto.FLOAT
                elif attribute.type == onnx.AttributeProto.TENSOR:
                    _widen(attribute.t)
    save_graph(model, target)


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type in _NARROW:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
