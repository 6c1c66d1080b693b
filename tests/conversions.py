"""Checkpoints converted by the convert command, kept under `.cache/tests` by a hash of everything that makes them.

Beside source files, packages and checkpoint, the processor and the number of its cores count: kernels round otherwise
on another, and calibration and parity run on this one. Who finds a conversion kept needs no torch, which takes seconds
to import; of checkpoints that are drawn at random the source files count, so that none is drawn for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from server.graphs.checking import verify_files
from server.manifest import BundleError, read_manifest
from tests.sources import ROOT, sources

CACHE = ROOT / ".cache" / "tests"
KEPT = 2
"""How many hashes' conversions are kept; those of one take up to a gigabyte."""
PRINTED = "printed.txt"


@dataclass(frozen=True)
class Conversion:
    """A bundle, which tests share and must leave as it is, and what the command printed while making it."""

    bundle: Path
    printed: str


def processor() -> str:
    """What the processor calls itself and what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(told)}))


def fingerprint(folder: Path) -> str:
    """Hash of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


@cache
def makers() -> str:
    """Hash of what makes a bundle of a checkpoint: sources, packages, Python, processor and cores."""
    digest = hashlib.sha256()
    for path in sorted({*sources(__name__), *sources("tests.checkpoints")}):
        digest.update(f"{path.relative_to(ROOT).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    packages = sorted(f"{package.name}=={package.version}" for package in importlib.metadata.distributions())
    machine = (platform.python_version(), processor(), os.cpu_count())
    digest.update(repr((packages, machine)).encode())
    return digest.hexdigest()[:16]


@cache
def store(root: Path) -> Path:
    """The folder in `root` for what the present makers make; of other ones' folders the oldest are removed."""
    folder = root / makers()
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    others = sorted((path for path in root.iterdir() if path != folder), key=lambda path: path.stat().st_mtime_ns)
    for old in others[: max(0, len(others) - KEPT + 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def is_whole(bundle: Path) -> bool:
    """Whether a bundle is there with every file as its manifest has it."""
    try:
        verify_files(bundle, read_manifest(bundle))
    except (BundleError, OSError):
        return False
    return True


def converted(checkpoint: Path, name: str, precision: str, root: Path = CACHE) -> Conversion:
    """Convert a checkpoint, unless that has been done.

    Args:
        checkpoint: its folder.
        name: of the bundle.
        precision: of the bundle.
        root: where conversions are kept.

    Raises:
        RuntimeError: the command failed.
    """
    return _kept(f"{name}-{precision}-{fingerprint(checkpoint)[:16]}", lambda: checkpoint, name, precision, root)


def converted_shape(checkpoint_of: Callable[[str], Path], shape: str, precision: str, root: Path = CACHE) -> Conversion:
    """Convert the random checkpoint of a shape, unless that has been done: then it is not even drawn.

    Args:
        checkpoint_of: draws it, and returns its folder.
        shape: its name in `tests.checkpoints.SHAPES`, which is the bundle's too.
        precision: of the bundle.
        root: where conversions are kept.

    Raises:
        RuntimeError: the command failed.
    """
    return _kept(f"{shape}-{precision}", lambda: checkpoint_of(shape), shape, precision, root)


def _kept(place_name: str, checkpoint: Callable[[], Path], name: str, precision: str, root: Path) -> Conversion:
    place = store(root) / place_name
    with FileLock(f"{place}.lock"):  # another run may be at it
        if not is_whole(place / name):
            shutil.rmtree(place, ignore_errors=True)
            with TemporaryDirectory(dir=place.parent) as scratch:
                _convert(checkpoint(), Path(scratch) / "made" / name, precision)
                (Path(scratch) / "made").rename(place)
    return Conversion(place / name, (place / PRINTED).read_text("utf-8"))


def _convert(checkpoint: Path, output: Path, precision: str) -> None:
    from export.convert import main as convert
    from tests.oracle import one_thread

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), one_thread():
        status = convert(["--model", str(checkpoint), "--output", str(output), "--precision", precision])
    if status != 0:
        raise RuntimeError(f"converting {checkpoint} to {precision} ended with status {status}:\n{printed.getvalue()}")
    (output.parent / PRINTED).write_text(printed.getvalue(), "utf-8")
