"""An environment of its own for each client, and a script that runs in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.server.running import KEY, ROOT, RunningServer, clean_environment

FOLDER = ROOT / ".cache" / "clients"
HERE = Path(__file__).parent
LIMIT_SECONDS = 300.0
"""How long a script may take before its test gives up."""


def python_of(client: str) -> Path:
    """Python of the environment that has the packages which `packages.toml` lists for a client.

    It is made where it is missing or was made of another list; both take minutes and a registry. A client that names a
    version of Python gets that one, which `.ci/newest-python` finds, else this one.
    """
    packages = tomllib.loads((HERE / "packages.toml").read_text())[client]
    requirements = packages["requirements"]
    interpreter = _newest(packages["python"]) if "python" in packages else sys.executable
    folder = FOLDER / client
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    made = folder / "requirements.txt"
    version = subprocess.run([interpreter, "-VV"], check=True, capture_output=True, text=True).stdout
    wanted = "\n".join([f"# {version.strip()}", *requirements])
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / f"{client}.lock"):
        if not made.exists() or made.read_text() != wanted:
            subprocess.run([interpreter, "-m", "venv", "--clear", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
            made.write_text(wanted)
    return python


def _newest(version: str) -> str:
    """Path of Python of this version."""
    find = subprocess.run(
        [ROOT / ".ci" / "newest-python"],
        env={**os.environ, "NEWEST": version},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return find.stdout.strip()


def has_torch(client: str) -> bool:
    """Whether torch came along with a client's packages."""
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
    return subprocess.run([python_of(client), "-c", look], check=False).returncode == 0


def run(client: str, server: RunningServer, *arguments: str) -> dict[str, Any]:
    """Facts that `scripts/as_CLIENT.py` reports of a server, given its address, a key, and these arguments."""
    script = HERE / "scripts" / f"as_{client.replace('-', '_')}.py"
    return reported([str(python_of(client)), str(script)], server, *arguments)


def reported(program: list[str], server: RunningServer, *arguments: str) -> dict[str, Any]:
    """The last line, JSON, that a program writes, given the server's address, a key, and these arguments."""
    done = subprocess.run(
        [*program, f"{server.url}/v1", KEY, *arguments],
        # LiteLLM asks the internet for prices otherwise.
        env=clean_environment(LITELLM_LOCAL_MODEL_COST_MAP="True"),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts
