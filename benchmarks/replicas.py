"""Replicas behind nginx: `python -m benchmarks.replicas`, with Debian's package `nginx-light` or any nginx from 1.15.

Three servers with the embedded model stand behind `deploy/nginx.conf`, whose addresses alone are exchanged. Callers
stream from it without a break while every replica is stopped and started again, while one is killed, and while more
arrive than all replicas have room for. The command fails where a request is lost that need not be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from websockets.asyncio.client import connect as connect_socket

from benchmarks.clients import PATIENCE_SECONDS, connect
from tests.bundles import TINY_BUNDLE
from tests.server.running import KEY, REAL, RunningServer, run_server

CONFIG = Path(__file__).resolve().parents[1] / "deploy" / "nginx.conf"
REPLICAS, ROWS, QUEUE = 3, 2, 2
CALLERS = 6
"""As many as all replicas have rows."""
BURST = 2 * REPLICAS * (ROWS + QUEUE)
TEXT = "The shop on the corner closes at six, so we went home. The next day it was closed again."
REPLICA_HEADER = "x-replica"
"""In which nginx names the replicas that it asked, the last of which answered."""
MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 2;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    add_header {header} $upstream_addr always;
    include {config};
}}
"""


class Lost(Exception):
    """A request came to grief that should not have."""


def free_ports(number: int) -> list[int]:
    """Return ports of the loopback address that nobody has at the moment."""
    with ExitStack() as taken:
        sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def running_nginx(folder: Path, port: int, replicas: list[int]) -> Iterator[int]:
    """Run nginx with our configuration on a port, before these replicas; yields its process id."""
    upstream = re.compile(r"(?:( +server 127\.0\.0\.1:)\d+(.*\n))+")
    text = upstream.sub(
        lambda found: "".join(f"{found[1]}{each}{found[2]}" for each in replicas), CONFIG.read_text("utf-8")
    )
    config, main = folder / "replicas.conf", folder / "nginx.conf"
    config.write_text(re.sub(r"listen \d+;", f"listen 127.0.0.1:{port};", text), "utf-8")
    main.write_text(MAIN.format(folder=folder, header=REPLICA_HEADER, config=config), "utf-8")
    process = subprocess.Popen(["nginx", "-e", folder / "error.log", "-p", folder, "-c", main])
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


class Replica:
    """A server on a port of its own, which can be stopped, killed and started again."""

    def __init__(self, port: int, scratch: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        scratch.mkdir()
        self._scratch = scratch
        self._settings = {
            "KW_MODELS_DIR": str(TINY_BUNDLE.parent),
            "KW_MODEL": TINY_BUNDLE.name,
            "KW_PORT": str(port),
            "KW_MAX_ROWS": str(ROWS),
            "KW_MAX_QUEUE": str(QUEUE),
            "KW_DRAIN_SECONDS": "60",
        }
        self._running: AbstractContextManager[RunningServer] | None = None
        self._server: RunningServer | None = None

    def start(self) -> None:
        """Start it, and wait until it can speak."""
        self._running = run_server(REAL, self._scratch, **self._settings)
        self._server = self._running.__enter__()
        self._server.wait_ready()

    def stop(self) -> None:
        """Send SIGTERM, and wait for its end."""
        assert self._server is not None
        if code := self._server.stop():
            raise Lost(f"{self.address} exited with {code}")

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self._server is not None
        self._server.process.kill()
        self._server.process.wait()

    def close(self) -> None:
        """End it, if it runs."""
        if self._running is not None:
            self._running.__exit__(None, None, None)


@dataclass
class Request:
    """A request and what became of it.

    Attributes:
        replicas: that nginx asked; the last one answered.
        end: `whole`, `refused`, `broken` in the midst of an answer, or `lost` without one; None while it is under way.
    """

    replicas: list[str] = field(default_factory=list)
    end: str | None = None


@dataclass
class Callers:
    """Clients of nginx, and all that they asked for."""

    http: httpx.AsyncClient
    requests: list[Request] = field(default_factory=list)

    async def ask(self) -> Request:
        """Stream one speech to its end."""
        request = Request()
        self.requests.append(request)
        fields = {"model": "tts-1", "voice": "alloy", "input": TEXT, "response_format": "pcm"}
        try:
            async with self.http.stream("POST", "/v1/audio/speech", json=fields) as answer:
                request.replicas = answer.headers.get(REPLICA_HEADER, "").split(", ")
                if answer.status_code == 429 and "retry-after" in answer.headers:
                    request.end = "refused"
                    return request
                if answer.status_code != 200:
                    request.end = "lost"
                    return request
                async for _ in answer.aiter_raw():
                    pass
        except httpx.TransportError:
            request.end = "broken" if request.replicas else "lost"
            return request
        request.end = "whole"
        return request

    async def ask_until(self, done: asyncio.Event) -> None:
        """Ask again and again until it is enough."""
        while not done.is_set():
            await self.ask()


async def during(callers: Callers, work: Awaitable[object]) -> list[Request]:
    """Let callers ask while something is done; return what they asked meanwhile."""
    first, done = len(callers.requests), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(callers.ask_until(done))
        await work
        done.set()
    return callers.requests[first:]


def row(name: str, requests: list[Request]) -> str:
    """Format a row of the table."""
    ends = Counter(request.end for request in requests)
    again = sum(len(request.replicas) > 1 for request in requests)
    by = Counter(request.replicas[-1] for request in requests if request.end == "whole")
    shares = " / ".join(str(number) for _, number in sorted(by.items()))
    cells = [name, len(requests), ends["whole"], shares, again, ends["refused"], ends["broken"], ends["lost"]]
    return f"| {' | '.join(map(str, cells))} |"


HEAD = (
    "| phase | requests | whole | by replica | asked of more than one | refused | broken | lost |\n"
    "|---|---|---|---|---|---|---|---|"
)


def expect(fact: bool, otherwise: str) -> None:
    """Raise `Lost` unless something is so."""
    if not fact:
        raise Lost(otherwise)


async def rolling_restart(replicas: list[Replica]) -> None:
    """Stop and start each replica, one after another."""
    for replica in replicas:
        await asyncio.to_thread(replica.stop)
        await asyncio.to_thread(replica.start)


async def kill_one(replica: Replica, callers: Callers) -> None:
    """Kill a replica as soon as it is streaming, and start it again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(one.end is None and one.replicas[-1:] == [replica.address] for one in callers.requests):
        expect(time.monotonic() < deadline, f"{replica.address} is never asked")
        await asyncio.sleep(0.01)
    replica.kill()
    await asyncio.sleep(2)
    await asyncio.to_thread(replica.start)
    await asyncio.sleep(2)


async def socket_speaks(port: int) -> int:
    """Speak through a WebSocket; the bytes of audio that came."""
    address, headers = f"ws://127.0.0.1:{port}/v1/audio/speech/stream", {"Authorization": f"Bearer {KEY}"}
    length = 0
    async with connect_socket(address, additional_headers=headers, proxy=None) as client:
        config = {"type": "session.config", "voice": "alloy", "response_format": "pcm", "stream_audio": True}
        for said in (config, {"type": "input.text", "text": TEXT}, {"type": "input.done"}):
            await client.send(json.dumps(said))
        async for message in client:
            if isinstance(message, bytes):
                length += len(message)
            elif json.loads(message)["type"] == "session.done":
                break
    return length


async def run(port: int, replicas: list[Replica], seconds: float) -> None:
    """Go through all phases, and print a row of the table for each."""
    print(HEAD, flush=True)
    async with connect(f"http://127.0.0.1:{port}", KEY) as http:
        callers = Callers(http)

        steady = await during(callers, asyncio.sleep(seconds))
        print(row("nothing happens", steady), flush=True)
        expect(all(one.end == "whole" for one in steady), "a request was not answered whole")
        expect(len({one.replicas[-1] for one in steady}) == REPLICAS, "not every replica was asked")

        restarted = await during(callers, rolling_restart(replicas))
        print(row("every replica is restarted", restarted), flush=True)
        expect(all(one.end == "whole" for one in restarted), "a rolling restart has lost a request")

        killed = await during(callers, kill_one(replicas[0], callers))
        print(row("one replica is killed", killed), flush=True)
        hit = [one for one in killed if one.end != "whole"]
        own = all(one.end == "broken" and one.replicas[-1] == replicas[0].address for one in hit)
        expect(own, "a kill has cost more than the streams of the replica that was killed")
        expect(0 < len(hit) <= ROWS + QUEUE, f"{len(hit)} streams were broken")

        first = len(callers.requests)
        await asyncio.gather(*(callers.ask() for _ in range(BURST)))
        burst = callers.requests[first:]
        print(row(f"{BURST} requests at once", burst), flush=True)
        expect(all(one.end in ("whole", "refused") for one in burst), "a burst has lost a request")
        refused = [one for one in burst if one.end == "refused"]
        expect(bool(refused), "nothing was refused: the burst was too small")
        expect(all(len(set(one.replicas)) == REPLICAS for one in refused), "refused before every replica was asked")
        whole = len(burst) - len(refused)
        expect(whole >= REPLICAS * (ROWS + QUEUE), f"{whole} accepted, although there is room for more")

        length = await socket_speaks(port)
        print(f"\nA WebSocket through nginx: {length / 48_000:.1f} s of audio.", flush=True)
        expect(length > 48_000, "a WebSocket does not speak")


def main(arguments: list[str] | None = None) -> None:
    """Start nginx and the replicas, and go through the phases."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8, help="of the first phase (default: %(default)s)")
    options = parser.parse_args(arguments)
    if shutil.which("nginx") is None:
        parser.error("nginx is not installed")
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as ending:
        Path(scratch).chmod(0o755)  # nginx' workers have a user of their own
        port, *ports = free_ports(1 + REPLICAS)
        replicas = [Replica(each, Path(scratch, str(each))) for each in ports]
        for replica in replicas:
            ending.callback(replica.close)
            replica.start()
        ending.enter_context(running_nginx(Path(scratch), port, ports))
        try:
            asyncio.run(run(port, replicas, options.seconds))
        except* Lost as lost:
            errors = Path(scratch, "error.log").read_text("utf-8", "replace").splitlines()[-20:]
            sys.exit("\n".join([f"failed: {lost.exceptions[0]}", *errors]))


if __name__ == "__main__":
    main()
