"""Where the time of one request goes: `python -m benchmarks.stages [--bundle FOLDER]`.

What `qwen3-tts bench` does, without `--bundle` on a full-size random checkpoint that it makes and converts (once, under
`.cache/benchmarks`): speed does not depend on the values of weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from server.bench.measure import measure
from server.bench.report import report
from server.manifest import Precision


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: a random one of full size)")
    parser.add_argument("--size", choices=["0.6b", "1.7b"], default="0.6b", help="of the random one")
    parser.add_argument("--precision", choices=get_args(Precision), default="int8", help="of the random one")
    parser.add_argument("--frames", type=int, default=50, help="codec frames a request (default: %(default)s, 4 s)")
    parser.add_argument("--requests", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--rows", type=int, nargs="+", default=[], help="also so many requests side by side")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU kernels (default: %(default)s)")
    options = parser.parse_args()
    if options.bundle is None:
        from benchmarks.checkpoints import full_size_bundle  # needs what the tests need

        options.bundle = full_size_bundle(options.size, options.precision)
    measured = measure(
        options.bundle,
        provider="cpu",
        threads=options.threads,
        frames=options.frames,
        requests=options.requests,
        rows=options.rows,
    )
    print(report(measured))


if __name__ == "__main__":
    main()
