"""Processes of the fake server, forked from one that has imported everything, which takes most of a start.

What a start of Python does is tested with the real server.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

LOADED = ("tests.server.fake_server", "server.http.app", "server.http.lifecycle", "server.models.memory")
"""What a server loads before it listens."""
CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()


class Forked:
    """Such a process, with as much of `subprocess.Popen` as tests use."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(LOADED))
        log, written = context.Pipe(duplex=False)
        settings = (written, list(arguments), dict(environment), str(folder))
        self._process = context.Process(target=_serve, args=settings)
        self._process.start()
        written.close()
        self.stderr = os.fdopen(os.dup(log.fileno()), encoding="utf-8", errors="replace")
        log.close()
        self.pid: int = self._process.pid or 0

    def poll(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return what `poll` does.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _serve(log: Connection, arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Run the fake server; what it logs goes to `log`."""
    os.dup2(log.fileno(), 2)
    log.close()
    from tests.server import fake_server

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv[1:] = arguments
    fake_server.main()
