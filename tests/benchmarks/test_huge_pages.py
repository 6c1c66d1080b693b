"""Large pages are compared with small ones only where the system has given some."""

from __future__ import annotations

import pytest

from benchmarks import huge_pages
from server.engine import bundle
from tests.bundles import RANDOM_BUNDLE


def test_without_large_pages_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "joined", lambda: 0.0)
    with pytest.raises(SystemExit, match="no large pages"):
        huge_pages.open_both(RANDOM_BUNDLE, 1)


def test_one_of_both_asks_for_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = iter((1.0, 3.5)), list[str]()
    monkeypatch.setattr(huge_pages, "joined", lambda: next(found))
    monkeypatch.setattr(bundle, "use_huge_pages", lambda: asked.append("asked"))
    opened, large = huge_pages.open_both(RANDOM_BUNDLE, 1)
    assert (set(opened), large, asked) == ({"large", "small"}, 2.5, ["asked"])
