"""Random checkpoints and the bundles made of them, built once a run and shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.without_torch import FIXTURES, needs_torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-torch", action="store_true", help="leave out the tests that need torch")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    wanted = config.getoption("--without-torch") and collection_path.suffix == ".py"
    return True if wanted and needs_torch(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    if config.getoption("--without-torch"):
        left_out = [item for item in items if FIXTURES & set(item.fixturenames)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not FIXTURES & set(item.fixturenames)]


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the random checkpoint of a shape in `tests.checkpoints.SHAPES`."""

    @cache
    def build(shape: str) -> Path:
        from tests.checkpoints import SHAPES, build_checkpoint  # needs torch, as the next one does

        return build_checkpoint(tmp_path_factory.mktemp("checkpoints") / shape, SHAPES[shape])

    return build


@pytest.fixture(scope="session")
def bundle_of(checkpoint_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of the bundle that the convert command makes of such a checkpoint, in fp32 unless told otherwise."""

    @cache
    def build(shape: str, precision: str = "fp32") -> Path:
        from export.convert import main as convert

        output = tmp_path_factory.mktemp("bundles") / shape
        status = convert(["--model", str(checkpoint_of(shape)), "--output", str(output), "--precision", precision])
        if status != 0:
            raise RuntimeError(f"converting {shape} to {precision} ended with status {status}")
        return output

    return build
