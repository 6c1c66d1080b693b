"""Which files of this repository a module needs, read from its import statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it the statement stands; of `from a import b` it is `a.b`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{path}: relative import")
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def files_of(name: str) -> Iterator[Path]:
    """The file of a dotted name and those of the packages that it lies in; none for what lies outside the repository.

    The last part of the name may be an attribute of a module.
    """
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        stem = ROOT.joinpath(*parts[:length])
        yield from (path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file())


def sources(name: str) -> list[Path]:
    """The file of a module and, sorted, every file of the repository that it imports, directly or not."""
    found: set[Path] = set()
    waiting = list(files_of(name))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += (file for imported in imports(path) for file in files_of(imported))
    return sorted(found)
