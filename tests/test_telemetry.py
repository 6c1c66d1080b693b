"""No telemetry is sent: no file in the user's folders, no look-up of a name, no connection."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import RANDOM_BUNDLE
from tests.server.answers import GOOD
from tests.server.running import REAL, ROOT, clean_environment, run_server

SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
PACKAGES = ("server", "export", "benchmarks", "tests")
REPORTING = {"onnxruntime", "huggingface_hub", "hibari", "faster_whisper", "optimum"}
"""Libraries that report to their makers, and those that load them."""
ALONE = ("-m", "tests.no_network") if sys.platform == "linux" else ()
"""Ends a program that calls the outside. Elsewhere than on Linux only the files are watched."""
COMMANDS = {
    "say": ("-m", "server", "say", "Hello.", "--seed", "1", "--exact-frames", "4", "-o"),
    "bench": ("-m", "server", "bench", "--frames", "2", "--requests", "1"),
    "export": ("-c", "import gc; gc.disable(); import export.calibration"),
}


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of somebody whose home is empty; the folder that holds it and the one for temporary files."""
    for name in list(os.environ):
        if name.startswith(("XDG_", "HF_")) or name in SWITCHES:
            monkeypatch.delenv(name)
    world = tmp_path / "world"
    for name, variable in (("home", "HOME"), ("home", "USERPROFILE"), ("temporary", "TMPDIR")):
        (world / name).mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(variable, str(world / name))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return world


def left_in(world: Path) -> list[str]:
    return sorted(str(path.relative_to(world)) for path in world.rglob("*") if not path.is_dir())


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(KW_MODELS_DIR=str(RANDOM_BUNDLE.parent), **variables)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=pytest.mark.torch) if name == "export" else name for name in COMMANDS]
)
def test_a_command_sends_no_telemetry(stranger: Path, tmp_path: Path, command: str) -> None:
    output = (str(tmp_path / "hello.wav"),) if command == "say" else ()
    done = run(*ALONE, *COMMANDS[command], *output)
    assert done.returncode == 0, done.stderr
    assert left_in(stranger) == []


def test_the_server_sends_no_telemetry(stranger: Path, tmp_path: Path) -> None:
    with run_server((*ALONE, *REAL), tmp_path, KW_MODELS_DIR=str(RANDOM_BUNDLE.parent)) as server:
        server.wait_ready()
        with server.client() as client:
            spoken = client.post("/v1/audio/speech", json={**GOOD, "exact_frames": 4})
        assert spoken.status_code == 200, spoken.text
        assert server.stop() == 0
    assert left_in(stranger) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forbid it")
@pytest.mark.parametrize(
    "call",
    [
        "socket.getaddrinfo('qwen3-tts.example', 443)",
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    ],
)
def test_who_calls_the_outside_is_ended(call: str) -> None:
    done = run(*ALONE, "-c", f"import socket\n{call}")
    assert done.returncode == -signal.SIGSYS


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_switches_telemetry_off_before_it_loads_anything(stranger: Path, package: str) -> None:
    script = (
        "import json, os, sys\n"
        f"import {package}\n"
        f"print(json.dumps([[os.environ.get(name) for name in {SWITCHES}], sorted(sys.modules)]))"
    )
    values, modules = json.loads(run("-c", script).stdout)
    assert values == ["1", "1"]
    assert not REPORTING & set(modules)


@pytest.mark.parametrize(("chosen", "kept"), [("0", "0"), ("1", "1"), ("", "1")])
def test_an_operator_may_choose_otherwise(stranger: Path, chosen: str, kept: str) -> None:
    script = "import os, server; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run("-c", script, ORT_DISABLE_TELEMETRY=chosen).stdout.strip() == kept


def early_loads(path: Path) -> Iterator[str]:
    """Where a script loads one of the libraries before one of our packages."""
    quiet = False
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        tops = {name.partition(".")[0] for name in names}
        quiet = quiet or bool(tops & set(PACKAGES))
        if not quiet and tops & REPORTING:
            yield f"{path.relative_to(ROOT)} line {node.lineno}: {', '.join(names)} before `import server`"


def test_no_script_loads_a_reporting_library_first() -> None:
    """Python runs a package's `__init__` before its modules; a script that lies in no package imports `server`."""
    scripts = sorted((ROOT / "models").rglob("*.py"))
    assert scripts
    assert [early for path in scripts for early in early_loads(path)] == []
