"""The speech server. Importing this package keeps the libraries below it from reporting to their makers."""

import os

__version__ = "0.1.0"
"""The project's version; it stands nowhere else."""

_SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
"""ONNX Runtime's official builds write a device id and events to the user's cache folder and send them to Microsoft
unless the first variable is set when `onnxruntime` is first imported; its function `disable_telemetry_events` comes too
late (https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md). The second keeps the names and versions of
installed libraries out of what huggingface_hub tells the Hub. `export` and `benchmarks` import this package first."""

for _switch in _SWITCHES:
    # A value of the operator's own is kept, 0 too: it can only be there on purpose. An empty one says nothing.
    if not os.environ.get(_switch):
        os.environ[_switch] = "1"
