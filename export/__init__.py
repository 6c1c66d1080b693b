"""From a PyTorch checkpoint to an ONNX bundle."""

import server  # noqa: F401  (before any library of this package: it switches their telemetry off)
