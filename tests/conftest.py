"""A real server, random checkpoints and the bundles made of them, shared by all tests.

What needs torch is imported when a test asks for it: most tests of the server run without.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from server.manifest import TOKENIZER
from tests.bundles import RANDOM_BUNDLE
from tests.server.running import REAL, RunningServer, run_server
from tests.without_torch import FIXTURES, needs_torch

if TYPE_CHECKING:
    from tests.conversions import Conversion

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
CACHE.mkdir(exist_ok=True)
COLLECTING = FileLock(CACHE / f"collecting-{sys.implementation.cache_tag}.lock")
"""Is held until all tests are collected: of parts that begin at once in new environments, one compiles what all import,
torch among it, and not each of them the same."""
COLLECTING.acquire()
gc.disable()  # until all tests are collected: it would look for garbage in what is loaded, for a second and more

ELSEWHERE = (ROOT / "tests" / "clients", ROOT / "tests" / "ray")
"""Tests with environments of their own, which weigh a gigabyte and more: only whoever names them gets them."""


def pytest_collection_finish() -> None:
    """Limit torch's threads, and leave what is loaded by now to no garbage collection.

    `OMP_NUM_THREADS` is too late if torch is loaded already. Every export of a graph collects garbage, which takes a
    quarter of a second where torch and all tests are looked through.
    """
    COLLECTING.release()
    gc.freeze()
    gc.enable()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-torch", action="store_true", help="leave out the tests that need torch")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "torch: needs torch, in a process of its own")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    named = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    if collection_path in ELSEWHERE and not any(path.is_relative_to(collection_path) for path in named):
        return True
    wanted = config.getoption("--without-torch") and collection_path.suffix == ".py"
    return True if wanted and needs_torch(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    if config.getoption("--without-torch"):
        left_out = [item for item in items if FIXTURES & set(item.fixturenames) or item.get_closest_marker("torch")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the random checkpoint of a shape in `tests.checkpoints.SHAPES`."""
    from tests.checkpoints import SHAPES, build_checkpoint

    @cache
    def build(shape: str) -> Path:
        return build_checkpoint(tmp_path_factory.mktemp("checkpoints") / shape, SHAPES[shape])

    return build


@pytest.fixture(scope="session")
def conversion_of(checkpoint_of: Callable[[str], Path]) -> Callable[..., Conversion]:
    """Convert such a checkpoint by the convert command, in fp32 if nothing else is asked for."""
    from tests.conversions import converted_shape

    @cache
    def convert(shape: str, precision: str = "fp32") -> Conversion:
        return converted_shape(checkpoint_of, shape, precision)

    return convert


@pytest.fixture(scope="session")
def bundle_of(conversion_of: Callable[..., Conversion]) -> Callable[..., Path]:
    """Folder of the bundle of such a conversion."""
    return lambda shape, precision="fp32": conversion_of(shape, precision).bundle


@pytest.fixture(scope="session")
def unrolled_frame_of(
    checkpoint_of: Callable[[str], Path], bundle_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The frame graph for a GPU, in float32, of such a checkpoint."""
    from tests.unrolled import unrolled_frame

    @cache
    def export(shape: str) -> Path:
        return unrolled_frame(checkpoint_of(shape), bundle_of(shape), tmp_path_factory.mktemp("frame"))

    return export


@pytest.fixture(scope="session")
def tokenizer_of(bundle_of: Callable[..., Path]) -> Callable[[str], Path]:
    """The tokenizer of such a bundle."""
    return lambda shape: bundle_of(shape) / TOKENIZER


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The bundle that the real clients talk to."""
    return RANDOM_BUNDLE


@pytest.fixture(scope="session")
def real_server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`python -m server` with that bundle as its default model."""
    scratch = tmp_path_factory.mktemp("real")
    with run_server(REAL, scratch, KW_MODELS_DIR=str(bundle.parent), KW_MODEL=bundle.name) as server:
        server.wait_ready()
        yield server
