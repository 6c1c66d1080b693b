"""From a torch module to an ONNX file: one declaration a graph, Optimum's exporter, and a comparison of the two."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from optimum.exporters.onnx import export_models
from optimum.exporters.onnx.base import OnnxConfig
from optimum.utils import NormalizedConfig
from torch import Tensor, nn

from export.graphs.files import data_path, save_graph
from export.graphs.validation import validate_graph

OPSET = 18

Axes = dict[str, dict[int, str]]


class GraphConfig(OnnxConfig):
    """Names, dynamic axes and sample inputs of one graph; subclasses declare the three members below.

    Lists of tensors are called `past` in the module's signature; in the graph their tensors are the inputs whose names
    begin with `past.`, in order.
    """

    NORMALIZED_CONFIG_CLASS = NormalizedConfig
    DEFAULT_ONNX_OPSET = OPSET

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module.config)
        self.module = module

    @property
    @abstractmethod
    def inputs(self) -> Axes:
        """Input names with their dynamic axes, in the order of the module's arguments."""

    @property
    @abstractmethod
    def outputs(self) -> Axes:
        """Output names with their dynamic axes, in the order of the module's results."""

    @abstractmethod
    def sample_inputs(self) -> dict[str, Tensor | list[Tensor]]:
        """Arguments to trace and validate with, by name."""

    def generate_dummy_inputs(self, framework: str = "pt", **shapes: Any) -> dict[str, Any]:
        inputs = self.sample_inputs()
        if framework == "pt":
            return inputs
        return {name: [t.numpy() for t in v] if isinstance(v, list) else v.numpy() for name, v in inputs.items()}

    def flatten_output_collection_property(self, name: str, field: Iterable[Any]) -> dict[str, Any]:  # type: ignore[override]
        names = [declared for declared in self.inputs if declared.startswith(f"{name}.")]
        return dict(zip(names, field, strict=True))


def export_graph(name: str, config: GraphConfig, folder: Path, *, validate: bool = True) -> Path:
    """Export `config.module` to `folder/name.onnx` with its weights beside it, and validate it against the module.

    Without `validate` the caller has to compare the two; in 8 bits a rounding may fall otherwise, which is a step.

    Raises:
        ValueError: ONNX Runtime's outputs differ from the module's, see `validate_graph`.
    """
    path = folder / f"{name}.onnx"
    data_path(path).unlink(missing_ok=True)  # of an export before: a graph that holds its weights leaves it there
    # Optimum would open and run the graph for the sizes that `declare_sizes` takes from the module.
    models = {name: (config.module, config)}
    export_models(models, folder, opset=OPSET, device="cpu", disable_dynamic_axes_fix=True)
    if validate:
        validate_graph(path, config)
    if not data_path(path).exists():
        save_graph(onnx.load(path), path)
    declare_sizes(path, config)
    return path


def declare_sizes(path: Path, config: GraphConfig) -> None:
    """Write the fixed sizes of the outputs into the graph: behind operators of its own the exporter knows none."""
    with torch.inference_mode():
        results = config.module(**config.sample_inputs())
    model = onnx.load(path, load_external_data=False)
    for value, result, axes in zip(model.graph.output, results, config.outputs.values(), strict=True):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis not in axes:
                dim.dim_value = result.shape[axis]
    onnx.save(model, path)


def state_axes(direction: str, names: Sequence[str], axes: dict[int, str]) -> Axes:
    """`past.NAME` or `next.NAME` for every carried tensor, all with the same dynamic axes."""
    return {f"{direction}.{name}": axes for name in names}
