import server  # noqa: F401  (before any library that is tested: it switches their telemetry off)
