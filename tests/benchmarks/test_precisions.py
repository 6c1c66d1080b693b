"""`python -m benchmarks.precisions`: how far codes agree, and what is timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.precisions import agreement, milliseconds
from export.parity import FRAMES
from server.engine.provider import open_bundle
from server.manifest import read_manifest

TEXTS = ["The tea is cold.", "Nobody came."]


def test_agreement_is_counted_over_all_texts(
    bundle_of: Callable[..., Path], checkpoint_of: Callable[[str], Path]
) -> None:
    bundles = {precision: bundle_of("short", precision) for precision in ("fp32", "int4")}
    found = agreement(checkpoint_of("short"), bundles, TEXTS)
    groups = read_manifest(bundles["fp32"]).sizes.code_predictor.num_code_groups
    compared = {"codebook 0": 2 * FRAMES, "other codebooks": 2 * FRAMES * (groups - 1)}
    assert found["fp32"] == {name: {"equal": count, "compared": count} for name, count in compared.items()}
    assert {name: counts["compared"] for name, counts in found["int4"].items()} == compared
    assert found["int4"]["other codebooks"]["equal"] < compared["other codebooks"]


def test_bundles_are_timed_in_turn(bundle_of: Callable[..., Path]) -> None:
    folders = {"a": bundle_of("short"), "b": bundle_of("short", "int8")}
    opened = {name: open_bundle(folder, provider="cpu", threads=1, slots=1) for name, folder in folders.items()}
    found = milliseconds(opened, frames=3, rounds=2)
    assert {name: len(times) for name, times in found.items()} == {"a": 2, "b": 2}
    assert min(min(times) for times in found.values()) > 0
