import os

# Matrices as small as those here take three times as long where threads share them and each core has other work too.
# NumPy and torch read the variable when they are loaded.
os.environ["OMP_NUM_THREADS"] = "1"

import server  # noqa: F401  (before any library that is tested: it switches their telemetry off)
