"""The house rules on imports: one direction, and no torch in the server."""

from __future__ import annotations

import subprocess
import sys

from tests.sources import ROOT, imports

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


def may_import(place: str, name: str) -> bool:
    """Whether the file of the server at `place` may import what has this dotted name."""
    room = place.rpartition("/")[0]
    if not name.startswith("server."):
        return name.partition(".")[0] not in HEAVY
    if room in ALLOWED and not name.startswith(tuple(f"{other}." for other in ALLOWED[room])):
        return False
    if name.startswith(("server.config", "server.routes", "server.app")) and place not in ENTRANCES:
        return room == "server/routes" and name.startswith("server.routes")
    return True


def test_every_server_module_keeps_to_its_room() -> None:
    places = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "server").rglob("*.py")}
    assert len(places) > 50
    astray = [(place, name) for place, path in places.items() for name in imports(path) if not may_import(place, name)]
    assert astray == []


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
