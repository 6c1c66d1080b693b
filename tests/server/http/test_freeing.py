"""What has ended is freed at once, without the garbage collector, for which all threads wait."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from sanic import Request
from sanic.response import HTTPResponse, text

from server.engine.job import Job, Sampling
from server.errors import BusyError
from server.http.capacity import OpenConnections, Turns
from server.http.connections import GuardedProtocol
from server.http.error_answers import JsonErrors
from server.http.receiving import GuardedHttp
from server.speech.stall_timeout import stall_timeout
from tests.server.clock import until
from tests.server.http import test_sanic
from tests.server.http.test_sanic import run

several_apps = test_sanic.several_apps


@pytest.fixture
def uncollected() -> Iterator[None]:
    """The collector does nothing of itself meanwhile, and `kept` does not look through what other tests have loaded."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


SENT = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nhost",
    "what is answered": b"GET /answered HTTP/1.1\r\nhost: x\r\n\r\n",
    "what is not answered": b"GET /waits HTTP/1.1\r\nhost: x\r\n\r\n",
    "what is answered in part": b"GET /begins HTTP/1.1\r\nhost: x\r\n\r\n",
    "what is refused when it has left": b"GET /refused HTTP/1.1\r\nhost: x\r\n\r\n",
    "what cannot be read": b"GET\r\n\r\n",
}
KEPT = (GuardedProtocol, GuardedHttp, Request, HTTPResponse, asyncio.Transport)


def kept() -> list[object]:
    return [each for each in gc.get_objects() if isinstance(each, KEPT)]


class LateTurns(Turns):
    """Lets what ends have its turn when others have had theirs."""

    def call(self, act: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(0.05, super().call, act)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("resets", [True, False], ids=["resets", "closes"])
@pytest.mark.parametrize("sends", SENT)
def test_nothing_is_left_of_a_connection(sends: str, resets: bool) -> None:
    """Some 20 objects of each, and 30 where a request's client had left, waited for the collector. It took 12 ms for
    700 connections, while it could free none of those that were open."""
    app = test_sanic.make_app(error_handler=JsonErrors())
    app.ctx.turns, app.ctx.connections = LateTurns(1), OpenConnections(100)
    begun: list[str] = []

    @app.get("/<what:str>")
    async def answer(request: Request, what: str) -> HTTPResponse | None:
        begun.append(what)
        if what == "answered":
            return text("")
        if what == "begins":
            response = await request.respond()
            await response.send("x")
        if what == "refused":
            await until(lambda: request.transport.is_closing(), "the client has left")
            raise BusyError("there are too many")
        await asyncio.Event().wait()
        return None

    async def test() -> None:
        async with test_sanic.serving(app, GuardedProtocol) as (server, port):
            before = len(kept())
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(SENT[sends])
            await until(lambda: server.connections, "it is connected")
            if sends in ("what is answered", "what is answered in part", "what cannot be read"):
                client.setblocking(False)
                await asyncio.get_running_loop().sock_recv(client, 1000)
            elif sends in ("what is not answered", "what is refused when it has left"):
                await until(lambda: begun, "the request begins")
            if resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            await until(lambda: not server.connections, "the connection is closed")
            await until(lambda: len(kept()) <= before, "nothing is left of it")

    run(test)


@pytest.mark.usefixtures("uncollected")
def test_nothing_is_left_of_a_job_that_has_been_heard() -> None:
    async def test() -> None:
        job = Job(np.zeros((1, 1), np.float32), Sampling(0.9, 50, 1.0, 1.05, 0.9, 50, 1.0), 0, 9)
        job.put(np.zeros(3, np.float32), 1)
        job.finish()
        assert [len(samples) async for samples in job] == [3]
        watched = weakref.ref(job)
        del job
        assert watched() is None

    run(test)


@pytest.mark.usefixtures("uncollected")
def test_nothing_is_left_of_a_limit_on_stalls() -> None:
    """Some 15 objects were, of each part of each file."""

    class Work:
        def progress(self) -> int:
            return 0

    async def test() -> None:
        work = Work()
        watched = weakref.ref(work)
        async with stall_timeout(work.progress, 10):
            pass
        del work
        assert watched() is None

    run(test)
