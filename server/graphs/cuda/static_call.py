"""A session's call over buffers that stay where they are, as a GPU and CUDA graphs want it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Buffer = tuple[tuple[int, ...], type[np.generic]]
"""Shape and type."""
NO_GRAPH = -1
"""What tells ONNX Runtime neither to capture nor to replay."""


def run_options(graph_id: int) -> ort.RunOptions:
    """Options of a run that captures a CUDA graph under this id, above 0, or replays it; see `NO_GRAPH`.

    Sessions that were not opened for CUDA graphs take no notice.
    """
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options


class StaticCall:
    """One shape of a session's inputs.

    A captured CUDA graph holds addresses: what is bound here is bound for good, and values are copied in and out.

    Args:
        session: whose graph is run.
        device: where inputs and outputs lie, cpu or cuda.
        graph_id: as for `run_options`; no other shape or address of this session may have the same.
        inputs: arrays of the right shapes and types, by name.
        outputs: shape and type of each output to be read, by name.
        kept_inputs: values in the caller's hands, by name; `kept_outputs` likewise.
        on_host: an input that kernels read on the host; a captured graph has it as it was.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        device: str,
        graph_id: int,
        *,
        inputs: Mapping[str, NDArray[Any]] | None = None,
        outputs: Mapping[str, Buffer] | None = None,
        kept_inputs: Mapping[str, ort.OrtValue] | None = None,
        kept_outputs: Mapping[str, ort.OrtValue] | None = None,
        on_host: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self._session, self._options = session, run_options(graph_id)
        self._inputs = {n: _buffer(v.shape, v.dtype.type, device) for n, v in (inputs or {}).items()}
        self._outputs = {name: _buffer(shape, dtype, device) for name, (shape, dtype) in (outputs or {}).items()}
        self._kept = (dict(kept_inputs or {}), dict(kept_outputs or {}))  # a binding does not keep a host's array alive
        self._binding = session.io_binding()
        for name, value in (*self._inputs.items(), *self._kept[0].items()):
            self._binding.bind_ortvalue_input(name, value)
        self._on_host = dict(on_host or {})
        for name, array in self._on_host.items():  # read where they are at every run
            self._binding.bind_cpu_input(name, array)
        for name, value in (*self._outputs.items(), *self._kept[1].items()):
            self._binding.bind_ortvalue_output(name, value)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Copy the inputs in, run, and copy the outputs out, in the order in which they were declared."""
        for name, value in inputs.items():
            if name in self._on_host:
                self._on_host[name][...] = value
            else:
                self._inputs[name].update_inplace(np.ascontiguousarray(value))
        self._session.run_with_iobinding(self._binding, self._options)
        return [output.numpy().copy() for output in self._outputs.values()]


def _buffer(shape: tuple[int, ...], dtype: type[np.generic], device: str) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, device, 0)
