"""Measurements of stages, load and quality."""

import server  # noqa: F401  (before any library of this package: it switches their telemetry off)
