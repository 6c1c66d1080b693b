"""Makes bundles of full size with random weights, once, and keeps them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.make_checkpoint import SIZES, make_checkpoint
from tests.checkpoints import SHAPES, build_checkpoint

TINY = "tiny"
CACHE = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"


def full_size_bundle(size: str, precision: str) -> Path:
    """The bundle of a random checkpoint of `size` (a key of `SIZES`); made on the first call, which takes minutes.

    `tiny` is that of the tests, made in seconds: it shows that a benchmark runs, and nothing else.

    Raises:
        subprocess.CalledProcessError: the conversion failed; it has said why.
    """
    bundle = CACHE / f"qwen3_tts_{size.replace('.', '_')}_random_{precision}"
    if bundle.exists():
        return bundle
    checkpoint = CACHE / f"checkpoint-{size}"
    shutil.rmtree(checkpoint, ignore_errors=True)  # of a run that was cut off
    if size == TINY:
        build_checkpoint(checkpoint, SHAPES[TINY])
    else:
        make_checkpoint(checkpoint, SIZES[size])
    try:
        # A process of its own, or the memory it takes would count as the benchmark's.
        options = ("--model", checkpoint, "--output", bundle, "--precision", precision, "--noise")
        subprocess.run([sys.executable, "-m", "export.convert", *map(str, options)], check=True)
    finally:
        shutil.rmtree(checkpoint)
    return bundle
