"""The house rules on imports: one direction, and no torch in the server."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "transformers", "optimum", "onnx", "huggingface_hub", "export", "benchmarks", "tests"}
ALLOWED = {
    "server/graphs": ("server.graphs",),
    "server/audio": ("server.audio",),
    "server/text": ("server.text",),
    "server/engine": ("server.engine", "server.graphs"),
    "server/bench": ("server.bench", "server.engine", "server.graphs"),
}
"""Rooms that may import no other room of the server than these."""
ENTRANCES = {"server/app.py", "server/__main__.py", "server/arguments.py", "server/opening.py"}
"""Only these may import settings and routes."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError(f"{path}: relative import")
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


SERVER = sorted((ROOT / "server").rglob("*.py"))


@pytest.mark.parametrize("path", SERVER, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_server_module_keeps_to_its_room(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    room = path.parent.relative_to(ROOT).as_posix()
    for name in imports(path):
        assert name.partition(".")[0] not in HEAVY, f"{place} imports {name}"
        if name.startswith("server."):
            if room in ALLOWED:
                assert name.startswith(tuple(f"{r}." for r in ALLOWED[room])), f"{place} imports {name}"
            if name.startswith(("server.config", "server.routes", "server.app")) and place not in ENTRANCES:
                inside_routes = room == "server/routes" and name.startswith("server.routes")
                assert inside_routes, f"{place} imports {name}"


def test_export_is_the_only_room_with_torch_beside_benchmarks_and_tests() -> None:
    for path in (ROOT / "export").rglob("*.py"):
        assert not any(name.startswith(("benchmarks", "tests")) for name in imports(path)), path
    assert not (ROOT / "export" / "onnx.py").exists()


def test_starting_the_server_loads_no_torch() -> None:
    script = "import sys, server.__main__, server.app, server.engine.worker\nprint(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    modules = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert {"server", "onnxruntime", "sanic"} <= modules
    assert not modules & HEAVY
