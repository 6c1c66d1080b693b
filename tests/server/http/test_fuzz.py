"""Requests that nobody should send: each is answered or hung up on, none is a 500, and the server goes on."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.speech.request import SpeechRequest
from tests.server.answers import GOOD, PREFIXES, check_error
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, KEY, PATIENCE_SECONDS, RunningServer, run_server

MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(st.sampled_from([*SpeechRequest.model_fields, "stream", "x"]), VALUES).map(
    lambda wrong: {**GOOD, **wrong}
)
LINES = [
    b"POST /v1/audio/speech HTTP/1.1",
    b"GET /v1/models HTTP/1.1",
    b"OPTIONS /api/v1/audio/speech HTTP/1.1",
    b"Host: x",
    f"Authorization: Bearer {KEY}".encode(),
    b"Content-Length: 20",
    b"Content-Length: -1",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Connection: keep-alive",
    b"Origin: https://app.example",
    b"",
    b"5",
    b'{"a":',
    b"0",
]
NOT_OURS = re.compile(rb"Traceback|\.py\b")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    scratch = tmp_path_factory.mktemp("fuzz")
    write_bundle(scratch / "models", "custom", generation={"max_new_tokens": 2})
    settings = {"KW_MODELS_DIR": str(scratch / "models"), "KW_CORS_ORIGINS": "https://app.example"}
    with run_server(FAKE, scratch, **settings) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def check_calm(server: RunningServer, client: httpx.Client) -> None:
    """After each example, so that the one at fault is the one that is reported."""
    assert server.process.poll() is None
    assert server.complaints(client) == []


def check_answer(response: httpx.Response) -> None:
    if response.status_code != 200:
        assert response.status_code in (400, 404), response.text
        error = response.json()["error"]
        check_error(response, response.status_code, error["code"], error["param"])


@MANY
@given(body=BODIES | VALUES)
def test_random_json_is_answered_without_a_500(server: RunningServer, client: httpx.Client, body: Any) -> None:
    check_answer(client.post("/v1/audio/speech", content=json.dumps(body)))
    check_calm(server, client)


@MANY
@given(data=st.data())
def test_a_body_with_random_bytes_is_answered_without_a_500(
    server: RunningServer, client: httpx.Client, data: st.DataObject
) -> None:
    body = json.dumps(GOOD).encode()
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, len(body)))
    check_answer(client.post("/v1/audio/speech", content=body[:start] + data.draw(st.binary()) + body[end:]))
    check_calm(server, client)


HEADER = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40).map(
    lambda text: text.strip().encode("latin-1")
)


@MANY
@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["accept", "content-type", "origin", "x-request-id", "access-control-request-headers", "cookie", "range"]
        ),
        HEADER,
    ),
    method=st.sampled_from(["POST", "GET", "OPTIONS", "PUT", "X"]),
    prefix=st.sampled_from(PREFIXES),
)
def test_random_headers_make_no_difference(
    server: RunningServer, client: httpx.Client, headers: dict[str, bytes], method: str, prefix: str
) -> None:
    response = client.request(method, f"{prefix}/audio/speech", json=GOOD, headers=list(headers.items()))
    assert response.status_code == {"POST": 200, "OPTIONS": 204}.get(method, 405)
    check_calm(server, client)


@MANY
@given(path=st.binary(max_size=30).map(quote), query=st.binary(max_size=30).map(quote))
def test_random_paths_are_answered_without_a_500(
    server: RunningServer, client: httpx.Client, path: str, query: str
) -> None:
    for url in (f"/v1/models/{path}", f"/{path}", f"/v1/audio/voices?model={query}"):
        response = client.get(url)
        assert response.status_code in (200, 400, 404, 405), response.text
    check_calm(server, client)


@MANY
@given(
    lines=st.lists(st.sampled_from(LINES) | st.binary(max_size=30), max_size=12),
    separator=st.sampled_from([b"\r\n", b"\n", b""]),
)
def test_random_lines_never_disturb_the_server(
    server: RunningServer, client: httpx.Client, lines: list[bytes], separator: bytes
) -> None:
    answer = b""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as connection,
        suppress(ConnectionError),  # hung up on
    ):
        connection.sendall(separator.join(lines) + separator)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    check_calm(server, client)
    assert not re.search(rb"^HTTP/1\.1 5", answer, re.MULTILINE), answer
    assert not NOT_OURS.search(answer)


@pytest.mark.parametrize(("chunked", "size"), [(True, 3 << 20), (True, 30 << 20), (False, 30 << 20)])
def test_bodies_are_bounded(client: httpx.Client, chunked: bool, size: int) -> None:
    part = b"x" * 65536

    def parts() -> Iterator[bytes]:
        yield from (part for _ in range(size // len(part)))

    response = client.post("/v1/audio/speech", content=parts() if chunked else b"x" * size)
    check_error(response, 413, "request_too_large")


def test_a_body_of_the_largest_size_is_read(client: httpx.Client) -> None:
    body = json.dumps({**GOOD, "padding": "x" * (2 << 20)}).encode()
    assert client.post("/v1/audio/speech", content=body).status_code == 200
