"""A server in a process of its own, as a test sees it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.server.forked import CAN_FORK, Forked

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-test-key"
PATIENCE_SECONDS = 300.0
"""How long anything may take before a test gives up; no test measures time.

On one core five processes share it, each of which takes several times as long as alone.
"""

FAKE = ("-m", "tests.server.fake_server")
REAL = ("-m", "server")


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition is true, and return what it gave."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (outcome := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"never happened: {what}")
        time.sleep(0.01)
    return outcome


def fetch(method: str, url: str | httpx.URL, **more: Any) -> httpx.Response:
    """Ask on a connection of its own, as `httpx.request` does, which would read all the system's certificates first."""
    return httpx.request(method, url, timeout=PATIENCE_SECONDS, verify=False, **more)


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment less whatever KW_ settings the machine has, plus these.

    The graphs that most tests run are so small that a second thread makes them slower.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KW_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "KW_THREADS": "1", **variables}


class RunningServer:
    """A server process, its log, and the fake engine's events."""

    def __init__(self, process: subprocess.Popen[str] | Forked, events: Path) -> None:
        self.process = process
        self.log: list[str] = []
        self._looked_at = 0
        self._events = events
        self._noted: dict[str, list[dict[str, Any]]] = {}
        self._read_to = 0
        self._reading = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def _address(self) -> str | None:
        for line in self.log:
            if found := re.search(r" listening url=(\S+)", line):
                return found[1]
        if self.process.poll() is not None:
            self._reader.join()
            raise RuntimeError("the server ended:\n" + "\n".join(self.log))
        return None

    @property
    def url(self) -> str:
        """`http://host:port`, once the server listens."""
        return str(wait_until(self._address, "the server listens"))

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def wait_ready(self) -> None:
        def answer() -> bool:
            try:
                response = client.get("/readyz")
            except httpx.ConnectError:
                return False
            if response.status_code == 503 and response.json()["error"]["code"] != "model_loading":
                raise RuntimeError(response.text)
            return response.status_code == 200

        with self.client() as client:
            wait_until(answer, "the server is ready")

    def client(self, key: str | None = KEY) -> httpx.Client:
        """A client that sends this key, or none."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        # Servers here speak plain HTTP; without `verify=False` each client reads all the system's certificates.
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_SECONDS, verify=False)

    def complaints(self, client: httpx.Client) -> list[str]:
        """Errors that nobody foresaw, logged since the last call; it waits for the line of a request of its own."""
        mark, start = f"mark-{uuid4().hex}", self._looked_at
        client.get("/v1/models", headers={"x-request-id": mark})
        wait_until(lambda: any(f" id={mark} " in line for line in self.log[start:]), "a request is logged")
        self._looked_at = len(self.log)
        return [line for line in self.log[start : self._looked_at] if "unforeseen_error" in line or "Traceback" in line]

    def events(self, name: str) -> list[dict[str, Any]]:
        """What the fake engine noted under this name so far."""
        with self._reading:
            if self._events.exists():
                with self._events.open("rb") as file:
                    file.seek(self._read_to)
                    while (line := file.readline()).endswith(b"\n"):
                        self._read_to += len(line)
                        event = json.loads(line)
                        self._noted.setdefault(event["event"], []).append(event)
            return list(self._noted.get(name, ()))

    def wait_event(self, name: str, **fields: Any) -> dict[str, Any]:
        """The first event of this name with these fields, as soon as there is one."""

        def find() -> dict[str, Any] | None:
            fitting = (event for event in self.events(name) if fields.items() <= event.items())
            return next(fitting, None)

        found: dict[str, Any] = wait_until(find, f"{name} {fields}")
        return found

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join()
        return code


@contextmanager
def run_server(
    program: tuple[str, ...], scratch: Path, folder: Path = ROOT, /, **variables: str
) -> Iterator[RunningServer]:
    """Run a server on a free loopback port, from a working directory; whatever happens it is gone afterwards.

    The fake one is forked, where the system can do that; any other program is a Python of its own.
    """
    events = scratch / "events.jsonl"
    environment = clean_environment(
        **{
            "KW_PORT": "0",
            "KW_HOST": "127.0.0.1",
            "KW_SECRET_API_KEY": f"other,{KEY}",
            "FAKE_EVENTS": str(events),
            **variables,
        }
    )
    process: subprocess.Popen[str] | Forked
    if CAN_FORK and program[: len(FAKE)] == FAKE:
        process = Forked(program[len(FAKE) :], environment, folder)
    else:
        process = subprocess.Popen(
            [sys.executable, *program], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
        )
    try:
        yield RunningServer(process, events)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
