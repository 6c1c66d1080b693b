"""Random checkpoints and the bundles made of them, built once a run and shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from export.convert import main as convert
from tests.checkpoints import SHAPES, build_checkpoint


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the random checkpoint of a shape in `tests.checkpoints.SHAPES`."""

    @cache
    def build(shape: str) -> Path:
        return build_checkpoint(tmp_path_factory.mktemp("checkpoints") / shape, SHAPES[shape])

    return build


@pytest.fixture(scope="session")
def bundle_of(checkpoint_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of the bundle that the convert command makes of such a checkpoint, in fp32 unless told otherwise."""

    @cache
    def build(shape: str, precision: str = "fp32") -> Path:
        output = tmp_path_factory.mktemp("bundles") / shape
        status = convert(["--model", str(checkpoint_of(shape)), "--output", str(output), "--precision", precision])
        if status != 0:
            raise RuntimeError(f"converting {shape} to {precision} ended with status {status}")
        return output

    return build
