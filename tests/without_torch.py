"""The tests of a Python that has no torch: `pytest --without-torch` leaves out those that cannot do without it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = frozenset({"checkpoint_of", "conversion_of"})
"""They build checkpoints with torch and convert them."""
_TORCH = frozenset({"torch", "transformers", "optimum", "export"})
_OURS = frozenset({"tests", "benchmarks", "server"})


def needs_torch(path: Path) -> bool:
    """Whether a module, or one of ours that it imports, imports torch or the exporter.

    Of safetensors only the part for torch counts: the server reads voices with the one for numpy.
    """
    seen, left = {path}, [path]  # modules may name each other, for the sake of their types
    while left:
        names = _imported(left.pop())
        if any(name.partition(".")[0] in _TORCH or name == "safetensors.torch" for name in names):
            return True
        following = {found for name in names for found in _files_of(name)} - seen
        seen |= following
        left += following
    return False


@cache
def _imported(path: Path) -> list[str]:
    """Every module that might be meant: of `from a import b`, both `a` and `a.b`."""
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _files_of(module: str) -> list[Path]:
    if module.partition(".")[0] not in _OURS:
        return []
    path = ROOT.joinpath(*module.split("."))
    return [found for found in (path.with_suffix(".py"), path / "__init__.py") if found.is_file()]
