"""A session's call over tensors that stay where they are."""

from __future__ import annotations

from collections.abc import Mapping

import onnxruntime as ort


def graph_options(number: int) -> ort.RunOptions:
    """Options of a run that is recorded as a CUDA graph under a number from 0 on; -1 neither records nor replays.

    A session that is not on a GPU pays no regard to them.
    """
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options


NOT_CAPTURED = graph_options(-1)
"""A run without options would be recorded as well."""


class BoundCall:
    """A session with all its tensors bound once, to be run many times.

    Args:
        session: whose graph is run.
        inputs: by name; the caller writes new values into their memory.
        outputs: by name; the caller finds the results in their memory.
    """

    def __init__(
        self, session: ort.InferenceSession, inputs: Mapping[str, ort.OrtValue], outputs: Mapping[str, ort.OrtValue]
    ) -> None:
        self._session = session
        self._tensors = dict(inputs), dict(outputs)  # a binding does not keep the memory of a host's array alive
        self._binding = session.io_binding()
        for name, value in inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, options: ort.RunOptions | None = None) -> None:
        """Run the graph."""
        self._session.run_with_iobinding(self._binding, options)
