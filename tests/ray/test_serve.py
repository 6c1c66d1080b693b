"""The server on Ray Serve, on a Ray of this machine: requests, clients that leave, replicas that die, come and go."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.ray.cluster import QUEUE, ROWS, RayCluster, running_ray, wait
from tests.server.running import KEY, PATIENCE_SECONDS

SPEECH = "/v1/audio/speech"
SHORT = {"model": "tts-1", "voice": "alloy", "input": "The train leaves at seven.", "response_format": "pcm"}
LONG = {**SHORT, "input": "The old book lay under the table, and nobody had looked at it for a year. " * 12}
"""Takes tens of seconds to be made."""
BROKEN = (httpx.RemoteProtocolError, httpx.ReadError)


@pytest.fixture(scope="module")
def ray() -> Iterator[RayCluster]:
    with running_ray() as cluster:
        cluster.deploy(replicas=2)
        cluster.wait_running(2)
        yield cluster


@pytest.fixture(autouse=True)
def two_replicas(ray: RayCluster) -> None:
    """Each test finds two replicas."""
    ray.wait_running(2)


def fields_of(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", line))


def outcome(ray: RayCluster, request_id: str) -> str:
    """How the speech of a request ended, once the log of its replica tells it."""

    def find() -> str | None:
        told = (fields_of(line) for _, line in ray.logged("speech"))
        return next((fields["outcome"] for fields in told if fields["id"].startswith(request_id)), None)

    return str(wait(find, f"{request_id} ends"))


def test_a_file_whole_or_while_it_is_made(ray: RayCluster) -> None:
    with ray.client() as client:
        fields = {**SHORT, "seed": 3, "temperature": 0}
        whole = client.post(SPEECH, json={**fields, "stream": False}, headers={"x-request-id": "mine"})
        assert whole.status_code == 200 and len(whole.content) == int(whole.headers["content-length"]) > 24_000
        assert whole.headers.get_list("x-request-id") == ["mine"]
        with client.stream("POST", SPEECH, json=fields) as streamed:
            parts = list(streamed.iter_raw())
        assert len(parts) > 1 and b"".join(parts) == whole.content
        with client.stream("POST", SPEECH, json={**fields, "stream_format": "sse"}) as streamed:
            events = [json.loads(line.removeprefix("data: ")) for line in streamed.iter_lines() if line]
        assert events[-1]["type"] == "speech.audio.done" and len(events) > 2


def test_what_is_wrong_is_told_as_ever(ray: RayCluster) -> None:
    with ray.client() as client, ray.client(None) as stranger:
        assert stranger.post(SPEECH, json=SHORT).json()["error"]["code"] == "invalid_api_key"
        assert client.post(SPEECH, json={**SHORT, "voice": "nobody"}).status_code == 400
        assert client.post(SPEECH, content=b" " * 20_000_000).status_code == 413
        assert client.get("/nothing").json()["error"]["code"] == "not_found"
        assert client.get("/readyz").json()["model"] == "qwen3_tts_tiny"
        assert client.get("/v1/audio/voices").json()["voices"]
        assert client.get("/").headers["content-type"].startswith("text/html")


def dial(ray: RayCluster, key: str = KEY) -> ClientConnection:
    headers = {"authorization": f"Bearer {key}"}
    return connect(
        ray.url.replace("http", "ws") + f"{SPEECH}/stream",
        additional_headers=headers,
        compression=None,
        open_timeout=PATIENCE_SECONDS,
        proxy=None,
    )


def say(socket: ClientConnection, text: str) -> None:
    config = {"type": "session.config", "voice": "alloy", "response_format": "pcm", "stream_audio": True}
    for message in (config, {"type": "input.text", "text": text}, {"type": "input.done"}):
        socket.send(json.dumps(message))


def test_a_websocket_speaks(ray: RayCluster) -> None:
    with dial(ray) as socket:
        say(socket, SHORT["input"])
        length = 0
        while isinstance(message := socket.recv(PATIENCE_SECONDS), bytes) or "session.done" not in message:
            length += len(message) if isinstance(message, bytes) else 0
        assert length > 24_000
        socket.send(json.dumps({"type": "session.close"}))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE_SECONDS)
        assert closed.value.rcvd and closed.value.rcvd.code == 1000
    with pytest.raises(InvalidStatus) as refused:
        dial(ray, "sk-wrong")
    assert refused.value.response.status_code in (401, 403)


@pytest.mark.parametrize("way", ["audio", "sse", "whole", "socket"])
def test_a_client_that_leaves_frees_its_row(ray: RayCluster, way: str) -> None:
    name = f"leaves-{way}"
    if way == "socket":
        before = set(ray.logged("socket"))
        socket = dial(ray)
        say(socket, LONG["input"])
        while not isinstance(socket.recv(PATIENCE_SECONDS), bytes):
            pass
        socket.socket.close()
        wait(lambda: set(ray.logged("socket")) - before, "the socket ends")
        ((_, line),) = set(ray.logged("socket")) - before
        name = fields_of(line)["id"]
    elif way == "whole":
        with ray.client() as client, pytest.raises(httpx.ReadTimeout):
            client.post(SPEECH, json={**LONG, "stream": False}, headers={"x-request-id": name}, timeout=2)
    else:
        with (
            ray.client() as client,
            client.stream(
                "POST", SPEECH, json={**LONG, "stream_format": way}, headers={"x-request-id": name}
            ) as response,
        ):
            next(response.iter_raw())
    assert outcome(ray, name) == "stopped"


class Callers:
    """Clients that ask for one short speech after the other, until it is enough."""

    def __init__(self, ray: RayCluster, number: int) -> None:
        self._ray, self._number = ray, number
        self._enough = threading.Event()
        self.statuses: Counter[object] = Counter()

    def _call(self) -> None:
        with self._ray.client() as client:
            while not self._enough.is_set():
                try:
                    self.statuses[client.post(SPEECH, json=SHORT).status_code] += 1
                except httpx.TransportError as error:
                    self.statuses[type(error).__name__] += 1

    @contextmanager
    def asking(self) -> Iterator[None]:
        with ThreadPoolExecutor(self._number) as threads:
            calls = [threads.submit(self._call) for _ in range(self._number)]
            try:
                yield
            finally:
                self._enough.set()
        for call in calls:
            call.result()


def test_both_replicas_speak_and_what_is_too_much_waits_before_them(ray: RayCluster) -> None:
    before = Counter(process for process, _ in ray.logged("speech"))
    number = 2 * (ROWS + QUEUE) + 2

    def ask(_: int) -> int:
        with ray.client() as client:
            return client.post(SPEECH, json=SHORT).status_code

    with ThreadPoolExecutor(number) as threads:
        assert set(threads.map(ask, range(number))) == {200}
    wait(lambda: len(ray.logged("speech")) >= before.total() + number, "all is logged")
    assert len(Counter(process for process, _ in ray.logged("speech")) - before) == 2


def stream(ray: RayCluster, begun: threading.Event) -> tuple[str, int]:
    """Listen to a long speech; how it ended, and how long it is in bytes."""
    length = 0
    with ray.client() as client:
        try:
            with client.stream("POST", SPEECH, json=LONG) as response:
                for part in response.iter_raw():
                    length += len(part)
                    begun.set()
        except BROKEN:
            return "broken", length
    return ("whole" if response.status_code == 200 else str(response.status_code)), length


def streaming(ray: RayCluster, threads: ThreadPoolExecutor, number: int) -> list[Future[tuple[str, int]]]:
    """Begin so many long speeches; returns once all are heard."""
    begun = [threading.Event() for _ in range(number)]
    streams = [threads.submit(stream, ray, event) for event in begun]
    for event in begun:
        assert event.wait(PATIENCE_SECONDS)
    return streams


def test_a_replica_that_is_killed_costs_no_new_request_and_is_replaced(ray: RayCluster) -> None:
    killed, _ = ray.wait_running(2)
    callers = Callers(ray, 1)
    with ThreadPoolExecutor(2 * ROWS) as threads:
        streams = streaming(ray, threads, 2)
        os.kill(killed, signal.SIGKILL)
        with callers.asking():
            wait(lambda: killed not in ray.processes(), "Ray notices")
            ray.wait_running(2)
        ends = Counter(each.result()[0] for each in streams)
    assert ends["whole"] + ends["broken"] == 2, ends
    assert callers.statuses[200] > 0
    assert set(callers.statuses) <= {200}, callers.statuses


def test_a_rolling_update_under_load_loses_nothing(ray: RayCluster) -> None:
    old = set(ray.wait_running(2))
    callers = Callers(ray, 3)
    with callers.asking():
        ray.deploy(replicas=2, environment={"KW_MAX_REQUESTS_PER_KEY": "1000"})
        wait(lambda: len(set(ray.processes()) - old) == 2 and len(ray.processes()) == 2, "both are new")
        ray.wait_running(2)
    assert set(callers.statuses) == {200} and callers.statuses[200] > 2


def test_it_grows_under_load_and_shrinks_without_cutting_anything(ray: RayCluster) -> None:
    scaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 1,
        "downscale_delay_s": 1,
        "metrics_interval_s": 1,
        "look_back_period_s": 2,
    }
    ray.deploy(autoscaling_config=scaling)
    ray.wait_running(1)
    callers = Callers(ray, 4)
    with callers.asking():
        ray.wait_running(2)
    assert set(callers.statuses) == {200}
    with ThreadPoolExecutor(1) as threads:
        (kept,) = streaming(ray, threads, 1)
        ray.wait_running(1)
        end, length = kept.result()
    assert end == "whole" and length > 48_000
    ray.deploy(replicas=2)


def application_of(ray: RayCluster, wanted: str) -> dict[str, Any]:
    return wait(lambda: (found := ray.application()).get("status") == wanted and found, wanted)


def test_what_cannot_speak_is_not_put_to_work(ray: RayCluster) -> None:
    for environment, says in (
        ({"KW_SECRET_API_KEY": ""}, "there is no key"),
        ({"KW_MODEL": "nothing"}, "no model 'nothing'"),
    ):
        ray.deploy(replicas=2, environment=environment)
        told = json.dumps(application_of(ray, "DEPLOY_FAILED"))
        assert says in told
    ray.deploy(replicas=2)
