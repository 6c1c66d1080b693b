"""Bundles of full size with random weights, made once and kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.make_checkpoint import SIZES, make_checkpoint
from export.convert import main as convert

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "benchmarks"


def full_size_bundle(size: str, precision: str) -> Path:
    """The bundle of a random checkpoint of `size` (a key of `SIZES`); made on the first call, which takes minutes.

    Raises:
        RuntimeError: the conversion failed; it has said why.
    """
    bundle = CACHE / f"qwen3_tts_{size.replace('.', '_')}_random_{precision}"
    if bundle.exists():
        return bundle
    checkpoint = CACHE / f"checkpoint-{size}"
    shutil.rmtree(checkpoint, ignore_errors=True)  # of a run that was cut off
    make_checkpoint(checkpoint, SIZES[size])
    try:
        status = convert(
            ["--model", str(checkpoint), "--output", str(bundle), "--precision", precision, "--description", "Random."]
        )
    finally:
        shutil.rmtree(checkpoint)
    if status != 0:
        raise RuntimeError(f"converting the random {size} checkpoint ended with status {status}")
    return bundle
