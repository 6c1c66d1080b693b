"""The house rules on imports: one direction through the rooms, and no torch in the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.sources import ROOT, imports
from tests.without_torch import needs_torch

HEAVY = {"torch", "transformers", "optimum", "onnx", "huggingface_hub", "export", "benchmarks", "tests"}
LEAVES = {"errors", "leftovers", "log", "metrics"}
BELOW: dict[str, set[str]] = {
    "manifest": {"errors"},
    "errors": set(),
    "leftovers": set(),
    "log": set(),
    "metrics": set(),
    "text": set(),
    "audio": set(),
    "config": {"manifest", "errors"},
    "graphs": {"manifest"},
    "engine": {"graphs", "manifest", "metrics"},
    "bench": {"engine", "graphs", "manifest"},
    "models": {"engine", "graphs", "manifest", *LEAVES},
    "voices": {"audio", "engine", "manifest", *LEAVES},
    "speech": {"voices", "models", "text", "audio", "engine", "manifest", *LEAVES},
    "hub": {"voices", "models", "graphs", "manifest", *LEAVES},
    "http": {"speech", "voices", "models", "text", "audio", "manifest", "config", *LEAVES},
    "wyoming": {"speech", "voices", "models", "text", "manifest", *LEAVES},
    "cli": {
        "http",
        "hub",
        "wyoming",
        "speech",
        "voices",
        "models",
        "text",
        "audio",
        "engine",
        "graphs",
        "manifest",
        "config",
        "bench",
    }
    | LEAVES,
    "__main__": {"cli", "config", *LEAVES},
    "__init__": set(),
}
"""What each room, or module beside the rooms, may import of the server beside itself."""
SETTINGS = {"server/http/app.py"}
"""Files of `http` that may read settings; what they hold travels on as values."""
WITHOUT_SANIC = {
    "hub",
    "wyoming",
    "models",
    "voices",
    "speech",
    "text",
    "audio",
    "engine",
    "graphs",
    "bench",
    "config",
    *LEAVES,
}
WITH_ONNX_RUNTIME = {"graphs", "bench"}


def room_of(place: str) -> str:
    """The room that a file of the server lies in, or its own name if it lies in none."""
    _, first, *rest = place.split("/")
    return first if rest else first.removesuffix(".py")


def may_import(place: str, name: str) -> bool:
    """Whether the file of the server at `place` may import what has this dotted name."""
    room, (top, *rest) = room_of(place), name.split(".")
    if top != "server":
        if (top == "sanic" and room in WITHOUT_SANIC) or (top == "onnxruntime" and room not in WITH_ONNX_RUNTIME):
            return False
        return top not in HEAVY or (top == "huggingface_hub" and room == "hub")
    other = rest[0] if rest and (rest[0] in BELOW) else "__init__"
    if room == "http" and other == "config" and rest[1:2] != ["addresses"]:
        return place in SETTINGS
    return other in ("__init__", room) or other in BELOW[room]


PLACES = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "server").rglob("*.py")}


def test_every_server_module_keeps_to_its_room() -> None:
    assert len(PLACES) > 100
    assert {room_of(place) for place in PLACES} == set(BELOW)
    astray = [(place, name) for place, path in PLACES.items() for name in imports(path) if not may_import(place, name)]
    assert astray == []


def test_the_direction_has_no_circle() -> None:
    below = {room: set(others) for room, others in BELOW.items()}
    while free := {room for room, others in below.items() if not others}:
        below = {room: others - free for room, others in below.items() if room not in free}
    assert not below


def test_few_modules_lie_beside_the_rooms() -> None:
    assert len([place for place in PLACES if place.count("/") == 1]) <= 7


def test_export_is_the_only_room_with_torch_beside_benchmarks_and_tests() -> None:
    for path in (ROOT / "export").rglob("*.py"):
        assert not any(name.startswith(("benchmarks", "tests")) for name in imports(path)), path
    assert not (ROOT / "export" / "onnx.py").exists()


def loaded_by(script: str) -> set[str]:
    """The top names of all modules that are loaded once a script has run."""
    code = f"import sys\n{script}\nprint('loaded', *sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.partition(".")[0] for name in ran.stdout.rpartition("loaded ")[2].split()}


def test_starting_the_server_loads_no_torch() -> None:
    loaded = loaded_by("import server.__main__, server.http.app, server.engine.worker")
    assert {"server", "onnxruntime", "sanic"} <= loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    "arguments", [["voices"], ["voices", "list"], ["models"], ["keys", "list"], ["serve", "--help"]]
)
def test_what_only_lists_loads_neither_sanic_nor_onnx_runtime(
    arguments: list[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.touch()
    monkeypatch.setenv("KW_API_KEYS_FILE", str(keys))
    loaded = loaded_by(f"from server.__main__ import main\ntry: main({arguments!r})\nexcept SystemExit: pass")
    assert "server" in loaded
    assert not loaded & {"sanic", "onnxruntime", *HEAVY}


def test_a_python_without_torch_leaves_out_what_needs_it_and_nothing_else() -> None:
    """`safetensors.numpy`, which the server imports, needs no torch: most of its tests were left out for it."""
    assert needs_torch(ROOT / "tests" / "export" / "test_checkpoint.py")
    for name in ("http/test_pages.py", "voices/test_saved.py", "speech/test_plan.py"):
        assert not needs_torch(ROOT / "tests" / "server" / name), name
