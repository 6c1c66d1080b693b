"""What large pages for re-packed weights gain: `python -m benchmarks.huge_pages --bundle BUNDLE`.

The bundle is opened twice in one process, once as the server opens it and once without asking the system to join pages;
both take turns. Where the system has no such pages, or gives none, there is nothing to compare. Linux only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from unittest.mock import patch

from benchmarks.precisions import milliseconds
from server.bench.report import machine
from server.engine.bundle import OpenBundle
from server.engine.provider import open_bundle

ROLLUP = Path("/proc/self/smaps_rollup")


def joined() -> float:
    """Megabytes of this process that lie in large pages."""
    lines = ROLLUP.read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("AnonHugePages:"))


def open_both(folder: Path, threads: int) -> tuple[dict[str, OpenBundle], float]:
    """The bundle with large pages and without, and how many megabytes of the first lie in them.

    Raises:
        SystemExit: the system has given no large pages.
    """
    before = joined()
    large = open_bundle(folder, provider="cpu", threads=threads, slots=1)
    found = joined() - before
    if found <= 0:
        raise SystemExit("The system gives no large pages: see /sys/kernel/mm/transparent_hugepage/enabled.")
    with patch("server.engine.bundle.use_huge_pages", lambda: None):
        small = open_bundle(folder, provider="cpu", threads=threads, slots=1)
    return {"large": large, "small": small}, found


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.huge_pages", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True, help="folder")
    parser.add_argument("--frames", type=int, default=40, help="codec frames a request (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="of requests (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU kernels (default: %(default)s)")
    options = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("Only Linux joins pages so.")
    opened, found = open_both(options.bundle, options.threads)
    times = milliseconds(opened, options.frames, options.rounds)
    ratios = [small / large for large, small in zip(times["large"], times["small"], strict=True)]
    print(f"{options.bundle.name}, {options.frames} frames, {options.threads} threads; {machine()}")
    print(f"{found:.0f} MB lie in large pages")
    for name, measured in times.items():
        print(f"{name} pages: {median(measured):.1f} ms a frame for talker and code predictor")
    rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"times as fast with large pages: {median(ratios):.2f} ({rounds})")


if __name__ == "__main__":
    main()
