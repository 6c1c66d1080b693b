"""Random checkpoints and the bundles made of them, shared by all tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.checkpoints import SHAPES, build_checkpoint
from tests.conversions import Conversion, converted


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the random checkpoint of a shape in `tests.checkpoints.SHAPES`."""

    @cache
    def build(shape: str) -> Path:
        return build_checkpoint(tmp_path_factory.mktemp("checkpoints") / shape, SHAPES[shape])

    return build


@pytest.fixture(scope="session")
def conversion_of(checkpoint_of: Callable[[str], Path]) -> Callable[..., Conversion]:
    """What the convert command makes of such a checkpoint, in fp32 unless told otherwise."""

    @cache
    def convert(shape: str, precision: str = "fp32") -> Conversion:
        return converted(checkpoint_of(shape), shape, precision)

    return convert


@pytest.fixture(scope="session")
def bundle_of(conversion_of: Callable[..., Conversion]) -> Callable[..., Path]:
    """Folder of the bundle of such a conversion."""
    return lambda shape, precision="fp32": conversion_of(shape, precision).bundle
