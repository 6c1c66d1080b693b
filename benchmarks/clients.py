"""HTTP clients of a speech server: they stream over real connections, and some leave early or read slowly."""

from __future__ import annotations

import asyncio
import http.client
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.observed import Heard, Outcome, Part, Probe, Seen, State
from server.metrics import PREFIX

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

BYTES_PER_SECOND = 2 * 24_000
"""Bytes a second of Qwen3-TTS' PCM."""
FRAME_SECONDS = 0.08
PATIENCE_SECONDS = 600.0
PROBE_SECONDS = 0.05
STATE_SECONDS = 1.0
RETRY_SECONDS = 0.5
"""Seconds after which a listener who was refused asks again."""
LEAVES_AT_ONCE = 0.01
"""Seconds after which a client that does not wait for any answer hangs up."""


def _processes() -> ForkServerContext | SpawnContext:
    """How processes of their own are begun: forked from one that has imported this module, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@dataclass(frozen=True)
class Ask:
    """What a client is to request.

    Attributes:
        text: to be spoken.
        frames: codec frames that it lasts at most; None leaves the end to the model.
        seed: of its draws.
        leave: of its frames, how many are heard before the client hangs up; 0 waits for no answer.
        pace: seconds of audio read in a second, at most; None reads all there is.
    """

    text: str
    frames: int | None
    seed: int
    leave: int | None = None
    pace: float | None = None


def connect(url: str, key: str | None) -> httpx.AsyncClient:
    """Make a client without a limit on connections."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(
        base_url=url, headers=headers, timeout=PATIENCE_SECONDS, limits=httpx.Limits(), trust_env=False
    )


async def listen(http: httpx.AsyncClient, ask: Ask) -> Heard:
    """Send a request and listen to its end, or as far as `ask` says; an error is returned and not raised."""
    parts: list[Part] = []
    status: int | None = None
    outcome: Outcome = "failed"
    problem: str | None = None
    fields = {"model": "tts-1", "voice": "alloy", "language": "en", "input": ask.text, "seed": ask.seed}
    fields |= {"response_format": "pcm", "stream_format": "audio", "exact_frames": ask.frames}
    began = time.perf_counter()
    try:
        async with (
            asyncio.timeout(LEAVES_AT_ONCE if ask.leave == 0 else None),
            http.stream("POST", "/v1/audio/speech", json=fields) as response,
        ):
            status = response.status_code
            if status != 200:
                outcome, problem = ("refused", None) if status in (429, 503) else ("failed", f"status {status}")
            else:
                outcome = await _play(response, ask, parts)
    except TimeoutError:
        outcome = "left"
    except httpx.TransportError as error:
        problem = f"{type(error).__name__}: {error}"
    ended = time.perf_counter()
    return Heard(began, ended, outcome, status, tuple(parts), slow=ask.pace is not None, problem=problem)


async def _play(response: httpx.Response, ask: Ask, parts: list[Part]) -> Outcome:
    heard = 0.0
    async for data in response.aiter_raw():
        part = Part(time.perf_counter(), len(data) / BYTES_PER_SECOND)
        parts.append(part)
        heard += part.audio
        if ask.leave is not None and heard >= ask.leave * FRAME_SECONDS:
            return "left"
        if ask.pace is not None:
            await asyncio.sleep(part.audio / ask.pace)
    return "whole"


async def take_turns(http: httpx.AsyncClient, callers: int, asks: Iterable[Ask]) -> list[Heard]:
    """Let some callers request at once; each sends its next request as soon as its last one has ended."""
    rest = iter(asks)

    async def call() -> list[Heard]:
        return [await listen(http, ask) for ask in rest]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call()) for _ in range(callers)]
    return [heard for task in tasks for heard in task.result()]


async def arrive(http: httpx.AsyncClient, seconds: float, asks: Iterable[Ask]) -> list[Heard]:
    """Let a new caller request every so many seconds, even if earlier ones have not ended."""
    async with asyncio.TaskGroup() as group:
        tasks = []
        for ask in asks:
            tasks.append(group.create_task(listen(http, ask)))
            await asyncio.sleep(seconds)
    return [task.result() for task in tasks]


@contextmanager
def watching(url: str, key: str | None, seen: Seen, listener: Ask | None = None) -> Iterator[None]:
    """Fill `seen` while this lasts, from processes of their own, so that busy clients do not count as a slow server.

    One of them asks for `/livez` and does nothing else.

    Args:
        url: of the server.
        key: that it knows.
        seen: what is filled.
        listener: what somebody listens to meanwhile, again and again. The last time is heard to its end.

    Raises:
        EOFError: something was not answered; the process has said what.
    """
    processes, watchers = _processes(), []
    for watch, arguments in ((_probe, (url,)), (_attend, (url, key, listener))):
        here, there = processes.Pipe()
        process = processes.Process(target=watch, args=(there, *arguments), daemon=True)
        process.start()
        there.close()
        watchers.append((here, process))
    try:
        for here, _ in watchers:
            here.recv()
        yield
        for here, _ in watchers:
            here.send(None)
        for here, _ in watchers:
            found: Seen = here.recv()
            seen.probes += found.probes
            seen.states += found.states
            seen.heard += found.heard
    except BaseException:
        for _, process in watchers:
            process.terminate()
        raise
    finally:
        for _, process in watchers:
            process.join()


def _probe(pipe: Connection, url: str) -> None:
    """Ask for `/livez` at fixed times, once at least, until the pipe says so.

    An answer that takes longer than until the next time makes the next question late; that one's time counts too.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=PATIENCE_SECONDS)
    _ask_livez(connection)
    pipe.send(None)
    seen, due, ended = Seen(), time.perf_counter(), 0.0
    while not seen.probes or not pipe.poll(max(0.0, due - time.perf_counter())):
        began = due if ended > due else time.perf_counter()
        _ask_livez(connection)
        ended = time.perf_counter()
        seen.probes.append(Probe(began, ended - began))
        due += PROBE_SECONDS
    pipe.recv()
    pipe.send(seen)


def _ask_livez(connection: http.client.HTTPConnection) -> None:
    """Send a request again if the server had closed its waiting connection, as clients do (RFC 9110, section 9.2.2)."""
    try:
        connection.request("GET", "/livez")
        response = connection.getresponse()
    except (ConnectionError, http.client.BadStatusLine):
        connection.close()
        connection.request("GET", "/livez")
        response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise RuntimeError(f"/livez has answered {response.status}")


def _attend(pipe: Connection, url: str, key: str | None, listener: Ask | None) -> None:
    """Listen, and read `/metrics` now and then, until the pipe says so."""
    seen = Seen()
    noted: list[tuple[float, str]] = []
    enough = False

    async def hear(http: httpx.AsyncClient) -> None:
        while listener is not None and not enough:
            seen.heard.append(await listen(http, listener))
            if seen.heard[-1].outcome != "whole":
                await asyncio.sleep(RETRY_SECONDS)

    async def look(http: httpx.AsyncClient) -> None:
        response = (await _get(http, "/metrics")).raise_for_status()
        noted.append((time.perf_counter(), response.text))

    async def look_again(http: httpx.AsyncClient) -> None:
        while True:
            await look(http)
            await asyncio.sleep(STATE_SECONDS)

    async def work() -> None:
        async with connect(url, key) as http, asyncio.TaskGroup() as group:
            await look(http)
            pipe.send(None)
            looking, hearing = group.create_task(look_again(http)), group.create_task(hear(http))
            await asyncio.to_thread(pipe.recv)
            nonlocal enough
            enough = True
            await hearing
            looking.cancel()

    asyncio.run(work())
    seen.states += (_state(at, text) for at, text in noted)
    pipe.send(seen)


async def _get(http: httpx.AsyncClient, path: str) -> httpx.Response:
    """Send a request again if the server had closed its waiting connection, as clients do (RFC 9110, section 9.2.2)."""
    try:
        return await http.get(path)
    except httpx.TransportError:
        return await http.get(path)


def _state(at: float, metrics: str) -> State:
    families = {family.name: family for family in text_string_to_metric_families(metrics)}

    def values(name: str) -> Iterator[float]:
        return (sample.value for sample in families[name].samples) if name in families else iter(())

    rss = next(values("process_resident_memory_bytes"), None)
    running, waiting = (int(sum(values(f"{PREFIX}_{name}"))) for name in ("rows_running", "queue_depth"))
    return State(at, None if rss is None else int(rss), running, waiting)
