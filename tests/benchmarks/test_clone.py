"""The benchmark of cloned voices, on small bundles: it measures what it says, and its report has every row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.clone import ALONE, NEW, SAVED, SPEAKER, another, main, measure
from server.engine.primed import PrimedStates
from server.engine.reference import Reference
from tests.bundles import RANDOM_BUNDLE


def test_every_voice_is_measured(
    bundle_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    primed: list[int] = []
    advance = PrimedStates.advance
    monkeypatch.setattr(PrimedStates, "advance", lambda self, codes: (primed.append(len(codes)), advance(self, codes)))
    main([
        "--bundle", str(bundle_of("Base")), "--speakers", str(RANDOM_BUNDLE),
        "--seconds", "0.5", "0.7", "--rounds", "1", "--threads", "1",
    ])  # fmt: skip
    assert primed == [7] * 2 + [9] * 2 * 2 + [7] + [9] * 2, "in the first turn both, then the new ones"
    printed = capsys.readouterr().out
    rows = ("0.5 s", "0.7 s", SPEAKER, ALONE, f"{NEW} | 0.7 s", f"{SAVED} | 0.5 s")
    for row in (f"| {row} |" for row in rows):
        assert row in printed
    assert "+0.0 frames" in printed
    assert "A steady frame takes" in printed


def test_another_voice_is_of_the_same_sizes() -> None:
    codes = np.arange(12).reshape(4, 3)
    found = another(Reference(np.ones(5, np.float32), codes, "words"), 1)
    assert found.codes is not None
    assert (found.codes.shape, found.text) == (codes.shape, "words")
    assert not np.array_equal(found.codes, codes)
    assert not np.array_equal(found.speaker, np.ones(5))


def test_lengths_are_those_that_were_asked_for(bundle_of: Callable[[str], Path]) -> None:
    found = measure(bundle_of("Base"), RANDOM_BUNDLE, threads=1, seconds=[0.6], rounds=2)
    assert list(found.encoded) == [0.6]
    assert {kind for kind, _ in found.first} == {SPEAKER, ALONE, NEW, SAVED}
    assert all(len(rounds) == 2 for rounds in found.first.values())
    assert all(second > 0 for rounds in found.frame.values() for second in rounds)
