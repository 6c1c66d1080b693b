"""`python -m tests.server.elsewhere SYSTEM MODULE ARGUMENTS`: runs a module of ours as if on another system.

What stands behind each `THEN` are the arguments of a further run in the same process, unless the one before has failed.

What Python, Sanic and psutil lack or do otherwise there is taken away or changed. Their own code for that system, and
the system itself, cannot be had this way. Libraries are loaded before, since they look at the system when they are.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import mimetypes
import mmap
import os
import platform
import runpy
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

SYSTEMS = ("win32", "darwin", "arm64")
THEN = "THEN"
NOWHERE = Path("/nowhere")
PATHS_OF_LINUX = {
    "server.bench.report": ("CPU_INFO",),
    "server.graphs.caches": ("OVERCOMMIT",),
    "server.graphs.control_groups": ("GROUPS_OF_PROCESS", "MOUNT"),
    "server.graphs.cores": ("TOPOLOGY",),
    "server.graphs.pages": ("HUGE_PAGES", "MAPPINGS"),
}
"""Constants of ours that only Linux has files for."""
LIBRARIES = (
    "asyncio.unix_events",
    "av",
    "huggingface_hub.utils",
    "lameenc",
    "multiprocessing.util",
    "numpy",
    "onnxruntime",
    "prometheus_client",
    "pydantic_settings",
    "regex",
    "sanic.server.runners",
    "sentencex",
    "soundfile",
    "subprocess",
    "tempfile",
    "tokenizers",
)
POSIX_MODULES = ("fcntl", "grp", "pwd", "resource", "termios")
POSIX_FUNCTIONS = (
    "fork", "geteuid", "getuid", "getpgid", "getpriority", "nice", "sched_getaffinity", "sched_setaffinity",
    "setpriority", "sysconf",
)  # fmt: skip
BREAK = signal.SIGUSR1
"""Stands for Windows' SIGBREAK."""


def _without_linux() -> None:
    for module, constants in PATHS_OF_LINUX.items():
        for name in constants:
            setattr(importlib.import_module(module), name, NOWHERE / name)
    for name in ("sched_getaffinity", "sched_setaffinity"):
        delattr(os, name)
    if hasattr(os, "process_cpu_count"):  # of Python 3.13, which asks for the mask where there is one
        os.process_cpu_count = os.cpu_count


def _lock(handle: int, mode: int, size: int) -> None:
    """As `msvcrt.locking` for a file that nobody else has locked."""
    os.fstat(handle)


def _be_windows() -> None:
    _without_linux()
    for name in POSIX_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    msvcrt: Any = ModuleType("msvcrt")
    msvcrt.LK_LOCK, msvcrt.locking = 1, _lock
    sys.modules["msvcrt"] = msvcrt
    for name in POSIX_FUNCTIONS:
        if hasattr(os, name):
            delattr(os, name)
    for name in [name for name in dir(mmap) if name.startswith(("MADV_", "MAP_", "PROT_"))]:
        delattr(mmap, name)
    mimetypes.add_type("text/plain", ".js")  # as some registries have it
    ctypes.CDLL = _WindowsLibrary  # type: ignore[misc]
    _fake_loops_and_sockets()
    _fake_signals()


class _WindowsLibrary(ctypes.CDLL):
    def __init__(self, name: str | None, *arguments: Any, **named: Any) -> None:
        if name is None:
            raise TypeError("LoadLibrary() argument 1 must be str, not None")
        super().__init__(name, *arguments, **named)


def _fake_loops_and_sockets() -> None:
    loop: Any = asyncio.SelectorEventLoop
    for name in ("add_signal_handler", "remove_signal_handler"):
        setattr(loop, name, getattr(asyncio.AbstractEventLoop, name))  # which is not implemented
    runners: Any = importlib.import_module("sanic.server.runners")
    runners.OS_IS_WINDOWS = True  # it then serves a duplicate of the socket
    sockets: Any = socket
    sockets.socket.share = lambda shared, process: shared.fileno()
    sockets.fromshare = lambda number: socket.socket(fileno=os.dup(number))


def _fake_signals() -> None:
    """Another thread gets every signal, so that none interrupts what the main thread waits for."""
    names: Any = signal
    names.SIGBREAK = BREAK
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, BREAK})


def become(system: str) -> None:
    """Make this process look as if it ran on one of `SYSTEMS`."""
    importlib.import_module("server")
    for name in LIBRARIES:
        importlib.import_module(name)
    asyncio.new_event_loop().close()  # chooses the kind of loop by the system, once and for all
    importlib.import_module("server.bench.report")
    platform.processor = lambda: ""
    platform.machine = lambda: "arm64" if system == "darwin" else "aarch64"
    if system == "win32":
        _be_windows()
        platform.machine = lambda: "AMD64"
    elif system == "darwin":
        _without_linux()
        del psutil.Process.cpu_affinity
    if system != "arm64":
        sys.platform = system


def _runs(arguments: list[str]) -> Iterator[list[str]]:
    for together, run in groupby(arguments, lambda argument: argument != THEN):
        if together:
            yield list(run)


if __name__ == "__main__":
    _, system, module, *arguments = sys.argv
    become(system)
    for run in list(_runs(arguments)) or [[]]:
        sys.argv[1:] = run
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            if ended.code:
                raise
