"""Conversions beside the official package: `python -m benchmarks.random_checkpoints --seeds 100 120`.

Each seed draws the sizes and the weights of a checkpoint, every other one in the spelling of transformers 5, which is
converted at fp32. The table says how many greedy codes equal the official package's and how far the waveform is off. It
needs what the tests need.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers.utils import logging

from tests.oracle import assert_official
from tests.random_shapes import Agreement, compare, random_shape


def line(name: str, found: Agreement, verdict: str) -> str:
    """A row of the table."""
    equal = f"{(found.codes == found.official.codes).sum()} of {found.codes.size}"
    return f"{name:<10} {equal:>12} {found.waveform:>12.1e} {found.loudest:>8.2f} {found.seconds:>8.1f}  {verdict}"


def main(first: int, last: int) -> int:
    """Print the table of seeds `first` to `last`; 1 if any conversion failed or said other codes."""
    print(f"{'seed':<10} {'codes equal':>12} {'waveform':>12} {'peak':>8} {'seconds':>8}")
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    failures = 0
    for seed in range(first, last + 1):
        said = io.StringIO()
        try:
            with TemporaryDirectory() as folder, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                found = compare(random_shape(seed), Path(folder), newer=seed % 2 == 1, seed=seed)
            verdict = ""
            try:
                assert_official(found.codes, found.official)
            except AssertionError as error:
                verdict, failures = str(error), failures + 1
            print(line(str(seed), found, verdict), flush=True)
        except RuntimeError as error:
            failures += 1
            print(f"{seed:<10} {error}: {said.getvalue().strip().splitlines()[-1]}", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Convert random checkpoints and compare them with qwen-tts.")
    parser.add_argument("--seeds", nargs=2, type=int, default=(100, 120), metavar=("FIRST", "LAST"))
    sys.exit(main(*parser.parse_args().seeds))
