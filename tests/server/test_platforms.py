"""Windows, macOS and arm64, as far as they can be faked on Linux: see `tests.server.elsewhere` for what is."""

from __future__ import annotations

import ast
import json
import os
import pkgutil
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

import server
from server.bench import report
from server.http.close_delimited import reset_at_close
from tests.bundles import RANDOM_BUNDLE
from tests.server.answers import GOOD
from tests.server.elsewhere import BREAK, NOWHERE, PATHS_OF_LINUX, SYSTEMS, THEN
from tests.server.fakes import write_bundle
from tests.server.running import PATIENCE_SECONDS, ROOT, RunningServer, clean_environment, run_server, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems are faked on Linux; they are themselves")


def elsewhere(system: str, module: str, *arguments: str) -> tuple[str, ...]:
    return "-m", "tests.server.elsewhere", system, module, *arguments


def run(system: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = clean_environment(KW_MODELS_DIR=str(RANDOM_BUNDLE.parent), **variables)
    return subprocess.run(
        [sys.executable, *elsewhere(system, *arguments)], cwd=ROOT, env=environment, capture_output=True
    )


NOT_IMPORTED = ("server.__main__", "server.cli.ray_serve")
"""What runs when it is imported, and what wants Ray, which `make test-ray` has."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_module_can_be_imported(system: str) -> None:
    modules = [found.name for found in pkgutil.walk_packages(server.__path__, "server.")]
    script = (
        "import importlib, sys\n"
        "from tests.server.elsewhere import become\n"
        f"become({system!r})\n"
        "for name in [name for name in sys.modules if name.startswith('server.')]: del sys.modules[name]\n"
        f"for name in {[name for name in modules if name not in NOT_IMPORTED]}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=clean_environment(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_server_starts_speaks_and_stops(system: str, tmp_path: Path) -> None:
    with run_server(
        elsewhere(system, "server", "serve"), tmp_path, KW_MODELS_DIR=str(RANDOM_BUNDLE.parent), KW_THREADS="1"
    ) as running:
        running.wait_ready()
        with running.client() as client:
            # The first is longer than the caches are to begin with, where memory is not had for the asking.
            for audio_format, frames in (("mp3", 300), ("wav", 20), ("opus", 20)):
                fields = {**GOOD, "exact_frames": frames, "response_format": audio_format}
                spoken = client.post("/v1/audio/speech", json=fields)
                assert spoken.status_code == 200, spoken.text
            for name in ("v1/swagger/start.js", "web/player.js"):
                assert client.get(f"/{name}").headers["content-type"].startswith("text/javascript")
        assert running.stop() == 0
    assert not [line for line in running.log if "Traceback" in line or "ERROR" in line]


STOPS = [("win32", signal.SIGTERM), ("win32", signal.SIGINT), ("win32", BREAK), ("darwin", signal.SIGTERM)]


@pytest.mark.parametrize(("system", "number"), STOPS)
def test_the_first_signal_lets_nobody_new_in_and_the_second_ends_it(
    system: str, number: signal.Signals, tmp_path: Path
) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_FRAME_SECONDS": "0.5", "KW_DRAIN_SECONDS": "600"}
    with (
        run_server(elsewhere(system, "tests.server.fake_server"), tmp_path, **settings) as running,
        running.client() as client,
    ):
        running.wait_ready()
        fields = {**GOOD, "exact_frames": 2000, "stream_format": "audio"}
        with client.stream("POST", "/v1/audio/speech", json=fields) as response:
            parts = response.iter_raw()
            next(parts)
            running.process.send_signal(number)
            wait_until(lambda: refuses(running), "new connections are refused")
            assert next(parts)
            running.process.send_signal(number)
            assert running.process.wait(PATIENCE_SECONDS) == 0


# The same code gets the signals of both commands.
@pytest.mark.parametrize(("system", "number"), [("win32", BREAK), ("darwin", signal.SIGTERM)])
def test_a_signal_ends_the_command_wyoming_too(system: str, number: signal.Signals, tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    program = elsewhere(system, "tests.server.fake_server", "wyoming")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_WYOMING_URI": "tcp://127.0.0.1:0"}
    with run_server(program, tmp_path, **settings) as running:
        wait_until(lambda: any(" wyoming_listening " in line for line in running.log), "Wyoming is listened for")
        running.process.send_signal(number)
        assert running.process.wait(PATIENCE_SECONDS) == 0
        wait_until(lambda: running.log[-1].endswith(" stopped"), "the log says that it has stopped")
        assert [line for line in running.log if " draining " in line]


def refuses(running: RunningServer) -> bool:
    try:
        socket.create_connection(("127.0.0.1", running.port)).close()
    except ConnectionError:  # refused, or reset while the server is about to listen no longer
        return True
    return False


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_the_commands_work(system: str, tmp_path: Path) -> None:
    voices = tmp_path / "voices.json"
    profile = {"speaker": "serena", "description": "温柔, ça va"}
    voices.write_text(json.dumps({"profiles": {"gentle": profile}}), "utf-8")
    output = tmp_path / "hello.wav"
    speaking = (
        "say",
        "Hello.",
        "--exact-frames",
        "3",
        "-o",
        str(output),
        THEN,
        "bench",
        "--frames",
        "2",
        "--requests",
        "1",
    )
    listing = ("voices", THEN, "keys", "new", "alice", THEN, "keys", "list", THEN, "keys", "revoke", "alice")
    settings = {"KW_VOICES_FILE": str(voices), "KW_API_KEYS_FILE": str(tmp_path / "keys")}
    done = run(system, "server", *speaking, THEN, *listing, PYTHONIOENCODING="cp1252", **settings)
    assert (done.returncode, output.stat().st_size > 190) == (0, True), done.stderr
    told = done.stdout.decode("cp1252")
    assert ("not known on this system" in told) == (system == "win32")
    assert "\\u6e29\\u67d4, ça va" in told
    assert len(re.findall(r"^alice\b", told, re.MULTILINE)) == 1, told


@pytest.mark.parametrize(
    ("info", "processor", "says"),
    [
        ("processor\t: 0\nmodel name\t: Some Xeon\n\nprocessor\t: 1\nmodel name\t: Some Xeon\n", "", "Some Xeon"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nCPU architecture: 8\n", "", "aarch64"),
        (None, "arm", "arm"),
        (None, "", "aarch64"),
    ],
)
def test_the_processors_name(
    info: str | None, processor: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "CPU_INFO", tmp_path / "cpuinfo")
    if info is not None:
        (tmp_path / "cpuinfo").write_text(info)
    monkeypatch.setattr(report.platform, "processor", lambda: processor)
    monkeypatch.setattr(report.platform, "machine", lambda: "aarch64")
    assert report.machine() == f"{os.cpu_count()} x {says}"


@pytest.mark.parametrize(("system", "size"), [("win32", 4), ("linux", 8)])
def test_a_connection_that_breaks_off_is_reset(system: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' `struct linger` has two short numbers."""
    monkeypatch.setattr(sys, "platform", system)
    sock, transport = Mock(), Mock()
    transport.get_extra_info.return_value = sock
    reset_at_close(transport)
    level, option, linger = sock.setsockopt.call_args.args
    assert (level, option, len(linger)) == (socket.SOL_SOCKET, socket.SO_LINGER, size)
    half = size // 2
    assert [int.from_bytes(linger[:half], sys.byteorder), int.from_bytes(linger[half:], sys.byteorder)] == [1, 0]


LINUX = ("/proc", "/sys", "/dev/", "/etc/", "/var/")
ROUTES = ("/dev/captioned_speech",)
"""Paths of the server's own that look like Linux'."""


def constants() -> Iterator[tuple[str, str]]:
    """Module and text of every string in `server/` that looks like a path of Linux."""
    for path in sorted((ROOT / "server").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Constant) or node.value in ROUTES:
                continue
            if str(node.value).startswith(LINUX):
                yield module, str(node.value)


def test_every_path_of_linux_is_faked() -> None:
    """A new one belongs into `PATHS_OF_LINUX`, so that the tests above do without it."""
    found = sorted(module for module, _ in constants())
    assert found == sorted(module for module, names in PATHS_OF_LINUX.items() for _ in names)
    assert not NOWHERE.exists()
