"""Conversions here compute in one thread."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    if (
        importlib.util.find_spec("torch") is None
    ):  # then nothing is converted: what is fetched from a Hub needs no torch
        yield
        return
    from tests.oracle import one_thread

    with one_thread():
        yield
