"""A Python for arm64 with the server's packages for arm64, which QEMU's user emulation runs on another processor.

It is Debian's, unpacked and not installed, beside the wheels that pip would choose on such a machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cache" / "arm64"
UV = ROOT / ".cache" / "deploy-tools" / "bin" / "uv"
SUITE = "trixie"
"""The Debian of the Dockerfile's base image."""
CPU = "cortex-a76"
"""That of a Raspberry Pi 5."""
CPUINFO = """processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
"""What Linux says of such a core. ONNX Runtime reads it, and crashes on that of this machine."""


def command() -> tuple[list[str], dict[str, str]]:
    """Return the command that runs that Python here, and the variables that it needs; prepare it first.

    Raises:
        SystemExit: a tool is missing, of which it says where it comes from.
    """
    emulator = shutil.which("qemu-aarch64")
    if emulator is None or shutil.which("debootstrap") is None:
        sys.exit("qemu-user and debootstrap are not installed: apt-get install qemu-user debootstrap")
    if not (FOLDER / "whole").exists():
        _prepare()
    root = FOLDER / "root"
    (python,) = (root / "usr" / "bin").glob("python3.[0-9][0-9]")
    variables = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, FOLDER / "packages"))), "PYTHONDONTWRITEBYTECODE": "1"}
    return [emulator, "-cpu", CPU, "-L", str(root), str(python)], variables


def _prepare() -> None:
    if not UV.exists():
        sys.exit(f"{UV} is missing: `make check-deploy` brings it")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    root, packages = FOLDER / "root", FOLDER / "packages"
    options = ["--foreign", "--arch=arm64", "--variant=minbase", "--include=python3"]
    subprocess.run(["debootstrap", *options, SUITE, str(root)], check=True, stdout=subprocess.DEVNULL)
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", str(package), str(root)], check=True)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(CPUINFO, "utf-8")
    (python,) = (root / "usr" / "bin").glob("python3.[0-9][0-9]")
    wheels = ["--python-platform", "aarch64-manylinux_2_28", "--only-binary", ":all:", "--no-binary", "docopt"]
    wheels += ["--python-version", python.name.removeprefix("python"), "--target", str(packages)]
    wanted = ["--constraint", "constraints.txt", "--requirements", "pyproject.toml"]
    extras = [part for extra in ("cpu", "formats", "wyoming") for part in ("--extra", extra)]
    subprocess.run([str(UV), "pip", "install", "--quiet", *wheels, *wanted, *extras], check=True, cwd=ROOT)
    (FOLDER / "whole").touch()
