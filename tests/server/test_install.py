"""The wheel, installed away from the checkout: what it holds, and that it speaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from server import __version__
from server.manifest import MANIFEST_NAME
from tests.bundles import TINY_BUNDLE
from tests.server.running import ROOT, clean_environment, run_server

EMBEDDED = Path("server", "embedded", TINY_BUNDLE.name)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into; what it depends on comes from the tests' environment."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels], cwd=ROOT, check=True)
    (wheel,) = wheels.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(pip, check=True)
    return target


@pytest.fixture
def elsewhere(installed: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has the installed package and no checkout."""
    assert not tmp_path.is_relative_to(ROOT)
    return {"PYTHONPATH": str(installed)}


def run(installed: Path, elsewhere: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, installed / "bin" / "qwen3-tts", *arguments]
    environment = clean_environment(**elsewhere)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_takes_no_name_but_ours(installed: Path) -> None:
    top = {path.name for path in installed.iterdir()}
    assert top == {"server", "export", "bin", f"qwen3_tts_edge-{__version__}.dist-info"}


def test_the_wheel_holds_the_embedded_model_and_nothing_beside_it(installed: Path) -> None:
    listed = json.loads((TINY_BUNDLE / MANIFEST_NAME).read_text("utf-8"))["files"]
    held = {path.name: path.stat().st_size for path in (installed / EMBEDDED).iterdir()}
    held.pop(MANIFEST_NAME)
    assert held == {name: entry["size"] for name, entry in listed.items()}


def test_it_says_its_version(installed: Path, elsewhere: dict[str, str], tmp_path: Path) -> None:
    assert run(installed, elsewhere, tmp_path, "--version").stdout == f"qwen3-tts-edge {__version__}\n"


def test_an_installed_package_speaks_to_a_file(installed: Path, elsewhere: dict[str, str], tmp_path: Path) -> None:
    said = run(installed, elsewhere, tmp_path, "say", "Hello there.", "-o", "hello.wav")
    assert said.returncode == 0, said.stderr
    assert soundfile.info(tmp_path / "hello.wav").duration > 0.4


def test_it_speaks_where_uv_has_installed_it(installed: Path, elsewhere: dict[str, str], tmp_path: Path) -> None:
    for path in (installed / EMBEDDED).iterdir():
        (tmp_path / path.name).hardlink_to(path)  # as uv's cache and each environment share a file
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**elsewhere, "TMPDIR": str(temporary)}
    said = run(installed, environment, tmp_path, "say", "Hello there.", "-o", "hello.wav")
    assert said.returncode == 0, said.stderr
    assert soundfile.info(tmp_path / "hello.wav").duration > 0.4
    assert not list(temporary.iterdir())


def test_an_installed_package_serves_the_embedded_model(
    installed: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    program = (str(installed / "bin" / "qwen3-tts"), "serve")
    with run_server(program, tmp_path, tmp_path, **elsewhere) as server:
        server.wait_ready()
        assert server.log[0].endswith(f"starting version={__version__}")
        with server.client() as client:
            assert client.get("/readyz").json()["version"] == __version__
            assert client.get("/v1/openapi.json").json()["info"]["version"] == __version__
            fields = {"model": "tts-1", "voice": "alloy", "input": "Hello there."}
            spoken = client.post("/v1/audio/speech", json=fields)
            assert (spoken.status_code, spoken.headers["content-type"]) == (200, "audio/mpeg")
            for page in ("/", "/developers", "/v1/index.html"):
                assert client.get(page).status_code == 200


def models_of(installed: Path, elsewhere: dict[str, str], folder: Path) -> str:
    return run(installed, elsewhere, folder, "models").stdout


def test_bundles_of_the_working_directory_come_first(
    installed: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    assert TINY_BUNDLE.name in models_of(installed, elsewhere, tmp_path)  # some other project's folder
    own = tmp_path / "models" / "mine"
    own.mkdir()
    (own / MANIFEST_NAME).symlink_to(TINY_BUNDLE / MANIFEST_NAME)
    assert models_of(installed, elsewhere, tmp_path).startswith("mine (default)")


def test_the_exporter_is_a_command(installed: Path, elsewhere: dict[str, str], tmp_path: Path) -> None:
    told = run(installed, elsewhere, tmp_path, "convert", "--help")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("usage: qwen3-tts convert [-h] [--model MODEL]")


def test_without_torch_the_exporter_says_what_to_install(
    installed: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('absent', name='torch')")
    without = {"PYTHONPATH": os.pathsep.join([str(tmp_path), elsewhere["PYTHONPATH"]])}
    told = run(installed, without, tmp_path, "convert", "--model", "nowhere/model")
    assert told.returncode == 1
    assert "error: torch is not installed; run `make export-tools`" in told.stderr
    assert "Traceback" not in told.stderr
