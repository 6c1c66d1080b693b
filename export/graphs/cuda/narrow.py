"""bf16 and fp16 modules for the CUDA execution provider, and their export.

Weights, KV caches, activations and embedding tables take the narrow type. Wide stay: rotary angles (float32 until
their cosines and sines are rounded), the sums in norms and softmax (inside the kernels), heads, logits and sampling. In
fp16 also the residual stream with its norms, SwiGLU and `down_proj`, which overflow.

ONNX Runtime's CPU kernels compute fp16 by casting, and lack bf16: `export.graphs.cuda.widened` makes a graph of the
same structure and the same rounded weights that they can run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import onnx
import torch
from optimum.exporters.onnx import export
from torch import nn

from export.graphs.files import CONTRIB_DOMAIN, save_graph, with_subgraphs
from export.graphs.graph import OPSET, GraphConfig, declare_sizes
from export.graphs.layers import RMSNorm
from export.graphs.operators import NORM

NARROW_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "int4_bf16": torch.bfloat16}
_RESIDUAL = ("input_layernorm", "post_attention_layernorm", "model.norm")
WIDE = {"bf16": ("codec_head",), "fp16": ("codec_head", "down_proj", *_RESIDUAL), "int4_bf16": ("codec_head",)}
"""Modules that stay float32, by the end of their names. The residual stream takes the type of its norms, SwiGLU that of
`down_proj`; logits rounded to bf16 would often be equal."""
WIDE_TABLES = ("heads",)

Module = TypeVar("Module", bound=nn.Module)


def narrow(module: Module, precision: str) -> Module:
    """Bring a module, its weights in place, to bf16 or fp16, but for the islands; `fp32` leaves the weights alone."""
    for name, child in module.named_modules():
        if isinstance(child, RMSNorm):
            child.one_node = True
        if precision in NARROW_TYPES and not name.endswith(WIDE[precision]):
            for parameter in child.parameters(recurse=False):
                parameter.data = parameter.data.to(NARROW_TYPES[precision])
            for key, table in [*child.named_buffers(recurse=False)]:
                if table.is_floating_point() and key not in WIDE_TABLES:
                    setattr(child, key, table.to(NARROW_TYPES[precision]))
    return module


def export_narrow(name: str, config: GraphConfig, folder: Path) -> Path:
    """Export to `folder/name.onnx` as `export_graph` does, without the validation, for which CPU kernels lack."""
    path = folder / f"{name}.onnx"
    export(config.module, config, path, opset=OPSET, device="cpu", disable_dynamic_axes_fix=True)
    model = onnx.load(path)
    del model.graph.value_info[:]  # of the nodes' unused outputs the exporter knows no type, which no runtime reads
    for graph in with_subgraphs(model.graph):
        for node in graph.node:
            if node.op_type == NORM:
                node.domain = ""
    save_graph(model, path)
    declare_sizes(path, config)
    return path


def check_graph(model: onnx.ModelProto) -> None:
    """`onnx.checker` for all but the node that ONNX Runtime keeps in ONNX's own domain.

    Raises:
        onnx.checker.ValidationError: the graph is not well formed.
    """
    known = onnx.ModelProto()
    known.CopyFrom(model)
    for graph in with_subgraphs(known.graph):
        for node in graph.node:
            if node.op_type == NORM:
                node.domain = CONTRIB_DOMAIN
    onnx.checker.check_model(known)
