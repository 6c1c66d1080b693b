"""ONNX graphs as files, and the graphs within a graph; without torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

CONTRIB_DOMAIN = "com.microsoft"
"""ONNX Runtime's own operators."""


def data_path(path: Path) -> Path:
    """Where the weights of a graph lie."""
    return path.with_name(path.name + "_data")


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph, its larger tensors in one file beside it; the model's own tensors are moved out of it."""
    data_path(path).unlink(missing_ok=True)
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data_path(path).name,
        size_threshold=1024,
        convert_attribute=True,
    )


def with_subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and all that lie in its loops and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from with_subgraphs(attribute.g)
