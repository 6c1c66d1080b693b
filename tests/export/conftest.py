"""Conversions here compute in one thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    from tests.oracle import one_thread

    with one_thread():
        yield
