"""The image, built and tried without a container engine: `python -m benchmarks.image`, as root on Debian or Ubuntu.

buildah builds the target `cpu` of the Dockerfile (chroot isolation, vfs storage) on a Debian that debootstrap makes,
because the real base comes from a registry. What came out is then run as process 1 of namespaces of its own, on a
read-only root, under a user id that the image does not know, without capabilities. It must get healthy, speak, finish a
stream after SIGTERM and exit with 0. `apt-get install buildah debootstrap` brings what is needed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import soundfile

from benchmarks.arm64 import SUITE

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = "python3,python3-venv,ca-certificates"
BASE, IMAGE = f"localhost/qwen3-tts-base:{SUITE}", "localhost/qwen3-tts-edge:cpu"
CERTIFICATES = "/etc/ssl/certs"
"""Lent to the build, so that it trusts whom this machine trusts."""
STRANGER = 54321
"""A user id that the image does not know."""
KEY = "a-long-secret"
PATIENCE_SECONDS = 120.0
COMPILERS = ("cc", "gcc", "g++", "clang", "make")
LONG_TEXT = "The shop on the corner closes at six. " * 8


class Failed(Exception):
    """The image is not as it should be."""


def check(fact: object, what: str) -> None:
    """Print what is so.

    Raises:
        Failed: it is not so.
    """
    if not fact:
        raise Failed(f"not so: {what}")
    print(f"- {what}", flush=True)


class Buildah:
    """The command buildah with a storage of its own below a folder."""

    def __init__(self, folder: Path) -> None:
        self._command = ["buildah", "--storage-driver", "vfs", "--root", str(folder), "--runroot", f"{folder}.run"]

    def __call__(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run it, and return what it prints.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        command = [*self._command, *arguments]
        return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def has(self, image: str) -> bool:
        """Whether an image of this name is in the storage."""
        return image in self("images", "--format", "{{.Name}}:{{.Tag}}").split()

    @contextmanager
    def container(self, image: str) -> Iterator[tuple[str, Path]]:
        """Yield name and root folder of a working container of an image."""
        name = self("from", "--pull-never", image)
        try:
            yield name, Path(self("mount", name))
        finally:
            self("rm", name)


def build_base(buildah: Buildah) -> None:
    """Make the image that stands for the Dockerfile's base: Debian with Debian's own Python."""
    with buildah.container("scratch") as (name, root):
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        buildah("commit", "--quiet", name, BASE)


def build(buildah: Buildah, base: str) -> None:
    """Build the target `cpu` of the Dockerfile on a base image."""
    options = ["--isolation", "chroot", "--format", "docker", "--target", "cpu", "--tag", IMAGE]
    options += ["--build-arg", f"PYTHON_IMAGE={base}", "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
    buildah("build", "--quiet", *options, ".", cwd=ROOT)


@dataclass(frozen=True)
class Container:
    """A server that runs in an image's root folder.

    Attributes:
        process: `unshare`, which ends as the server does.
        server: the server's process id, seen from outside.
        url: where it is reached.
    """

    process: subprocess.Popen[bytes]
    server: int
    url: str

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in the server's namespaces, as its user."""
        user = ["--setuid", str(STRANGER), "--setgid", "0"]
        entered = ["nsenter", "--target", str(self.server), "--mount", "--pid", "--root", "--wd", *user, *command]
        environment = Path(f"/proc/{self.server}/environ").read_text().split("\0")
        variables = dict(line.split("=", 1) for line in environment if line)
        variables["PATH"] = f"{variables['PATH']}:{os.environ['PATH']}"  # nsenter itself is this machine's
        return subprocess.run(entered, env=variables, capture_output=True, text=True)


@contextmanager
def running(root: Path, config: dict[str, Any]) -> Iterator[Container]:
    """Run an image's command; whatever happens it is gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = [*config["Env"], f"KW_SECRET_API_KEY={KEY}", f"KW_PORT={port}", "KW_DRAIN_SECONDS=60", "KW_THREADS=1"]
    command = shlex.join([*config["Entrypoint"], *config["Cmd"]])
    there, folder = shlex.quote(str(root)), shlex.quote(config["WorkingDir"])
    group = config["User"].partition(":")[2]
    script = f"""
set -e
mount --make-rprivate /
mount --bind {there} {there}
mount -o remount,bind,ro {there}
mount -t proc proc {there}/proc
mount --rbind /dev {there}/dev
mount -t tmpfs -o mode=1777 tmpfs {there}/tmp
exec chroot {there} setpriv --reuid={STRANGER} --regid={group} --clear-groups --no-new-privs --bounding-set=-all \\
    --inh-caps=-all env --ignore-environment --chdir={folder} {shlex.join(variables)} {command}
"""
    process = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script])
    try:
        yield Container(process, _child(process.pid), f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _child(parent: int) -> int:
    return int(_until(lambda: Path(f"/proc/{parent}/task/{parent}/children").read_text().split(), "it has started")[0])


def _until(ask: Any, what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := ask()):
        if time.monotonic() > deadline:
            raise Failed(f"never happened: {what}")
        time.sleep(0.2)
    return answer


def look(root: Path, config: dict[str, Any]) -> None:
    """Check what the image says of itself and what is in it."""
    user = config["User"]
    check(re.fullmatch(r"[1-9]\d*:0", user), f"its user is not root: {user}")
    check(config.get("StopSignal") == "SIGTERM", "its stop signal is SIGTERM")
    check(config.get("Healthcheck"), f"it has a health check: {' '.join(config['Healthcheck']['Test'][1:])}")
    labels = {name for name in config["Labels"] if name.startswith("org.opencontainers.image.")}
    check(len(labels) >= 3, f"it has {len(labels)} labels of the OCI's")
    found = [
        name for name in COMPILERS for folder in ("bin", "usr/bin", "usr/local/bin") if (root / folder / name).exists()
    ]
    check(not found, f"it has no compiler ({', '.join(COMPILERS)})")
    packages = {path.name for path in (root / "opt/qwen3-tts/lib").glob("python3*/site-packages/*")}
    check("onnxruntime" in packages and not packages & {"torch", "transformers"}, "it has ONNX Runtime and no torch")
    check("pip" not in packages, "its environment has no pip")
    size = sum(path.lstat().st_size for path in (root / "opt").rglob("*") if path.is_file() and not path.is_symlink())
    print(f"- what it adds to its base: {size / 1e6:.0f} MB", flush=True)


def speak(container: Container, healthcheck: Sequence[str]) -> None:
    """Let it speak, and stop it while it does."""
    healthy = lambda: container.process.poll() is not None or container.run(healthcheck).returncode == 0  # noqa: E731
    _until(healthy, "its health check passes")
    check(container.process.poll() is None, f"its health check passes: {container.run(healthcheck).stdout.strip()}")
    status = Path(f"/proc/{container.server}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines())
    check(facts["Uid"].split() == [str(STRANGER)] * 4, f"it runs as user {STRANGER}, whom the image does not know")
    check(facts["NSpid"].split()[-1] == "1", "it is process 1 of its namespace")
    check(int(facts["CapEff"], 16) == 0 and facts["NoNewPrivs"] == "1", "it has no capability and can get none")
    touched = container.run(["touch", "/srv/x"])
    check("Read-only file system" in touched.stderr, "its root is read-only")
    with httpx.Client(
        base_url=container.url, headers={"authorization": f"Bearer {KEY}"}, timeout=PATIENCE_SECONDS
    ) as http:
        check(http.get("/v1/models", headers={"authorization": ""}).status_code == 401, "it wants its key")
        for audio_format in ("wav", "mp3", "opus"):
            fields = {"input": "Hello there.", "voice": "alloy", "response_format": audio_format, "stream": False}
            answer = http.post("/v1/audio/speech", json=fields).raise_for_status()
            seconds = soundfile.info(io.BytesIO(answer.content)).duration
            check(seconds > 0.4, f"it speaks: {seconds:.2f} s of {audio_format}")
        fields = {"input": LONG_TEXT, "voice": "alloy", "response_format": "pcm"}
        with http.stream("POST", "/v1/audio/speech", json=fields) as answer:
            stream = answer.iter_bytes()
            length = len(next(stream))
            os.kill(container.server, 15)
            length += sum(map(len, stream))
        check(length > 10 * 48_000, f"after SIGTERM a stream is heard to its end: {length / 48_000:.1f} s")
    check(container.process.wait(PATIENCE_SECONDS) == 0, "it exits with 0")


def main(arguments: list[str] | None = None) -> None:
    """Build, look, speak."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image", description=__doc__.splitlines()[0])
    parser.add_argument("--storage", type=Path, default=ROOT / ".cache/image", help="folder of buildah's images")
    parser.add_argument("--base", default=BASE, help="base image to pull instead of making one")
    parser.add_argument("--keep", action="store_true", help="try the image of the last time, without building it")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        parser.error("only root may mount and change its root folder")
    tools = ["buildah", "unshare", "nsenter", *(["debootstrap"] if options.base == BASE else [])]
    if missing := [name for name in tools if not shutil.which(name)]:
        parser.error(f"not installed: {', '.join(missing)}")
    options.storage.mkdir(parents=True, exist_ok=True)
    buildah = Buildah(options.storage.resolve())
    began = time.monotonic()
    try:
        if options.base == BASE and not buildah.has(BASE):
            build_base(buildah)
        if not options.keep:
            build(buildah, options.base)
            print(f"built for {platform.machine()} in {time.monotonic() - began:.0f} s", flush=True)
        with buildah.container(IMAGE) as (name, root):
            config = json.loads(buildah("inspect", "--type", "container", name))["Docker"]["config"]
            look(root, config)
            with running(root, config) as container:
                speak(container, config["Healthcheck"]["Test"][1:])
    except (Failed, subprocess.CalledProcessError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
