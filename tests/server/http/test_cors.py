"""What a page of another origin may do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.http.schemas import SPEECH_HEADERS
from tests.server.answers import GOOD, PREFIXES, check_error
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, RunningServer, fetch, run_server

OURS = "https://app.example"
ROUTES = {
    "/audio/speech": {"POST"},
    "/audio/voices": {"GET", "HEAD", "POST"},
    "/audio/models": {"GET", "HEAD"},
    "/models": {"GET", "HEAD"},
    "/models/custom": {"GET", "HEAD"},
    "/openapi.json": {"GET", "HEAD"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The server with two origins allowed."""
    scratch = tmp_path_factory.mktemp("cors")
    write_bundle(scratch / "models", "custom")
    origins = f"http://127.0.0.1:8080, {OURS}"
    with run_server(FAKE, scratch, KW_MODELS_DIR=str(scratch / "models"), KW_CORS_ORIGINS=origins) as server:
        server.wait_ready()
        yield server


def preflight(server: RunningServer, path: str, origin: str = OURS) -> httpx.Response:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}
    return fetch("OPTIONS", server.url + path, headers={"origin": origin, **asks})


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("path", "methods"), ROUTES.items())
def test_preflight_needs_no_key(server: RunningServer, prefix: str, path: str, methods: set[str]) -> None:
    response = preflight(server, prefix + path)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == OURS
    assert response.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert response.headers["access-control-allow-methods"] == response.headers["allow"]
    assert set(response.headers["allow"].split(", ")) == {*methods, "OPTIONS"}
    assert response.headers["vary"] == "Origin"
    assert response.headers["x-request-id"]
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_reads_the_answer_and_our_headers(server: RunningServer, stream: bool) -> None:
    with server.client() as client:
        fields = {**GOOD, "stream": stream}
        response = client.post("/v1/audio/speech", json=fields, headers={"origin": OURS})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == OURS
    exposed = response.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "x-seed", "retry-after", *SPEECH_HEADERS} <= set(exposed)


@pytest.mark.parametrize(
    ("path", "status", "code"), [("/v1/models", 401, "invalid_api_key"), ("/nowhere", 404, "not_found")]
)
def test_a_page_reads_errors(server: RunningServer, path: str, status: int, code: str) -> None:
    response = fetch("GET", server.url + path, headers={"origin": OURS})
    check_error(response, status, code)
    assert response.headers["access-control-allow-origin"] == OURS


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.evil.example", "null", ""])
def test_other_origins_get_no_permission(server: RunningServer, origin: str) -> None:
    for response in (
        preflight(server, "/v1/audio/speech", origin),
        fetch("GET", f"{server.url}/v1/audio/voices", headers={"origin": origin}),
    ):
        assert response.is_success
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize("wanted", ["a b", "a,", ",a", "a;b", "a: b", "a,,b", "\x85a"])
def test_only_a_list_of_names_is_repeated(server: RunningServer, wanted: str) -> None:
    asks = {"access-control-request-headers": wanted.encode("latin-1")}
    response = fetch("OPTIONS", f"{server.url}/v1/audio/speech", headers={"origin": OURS.encode(), **asks})
    assert response.headers["access-control-allow-headers"] == "authorization, content-type"


def test_a_line_feed_in_a_header_makes_no_header(server: RunningServer) -> None:
    request = f"OPTIONS /v1/models HTTP/1.1\r\nHost: x\r\nOrigin: {OURS}\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"{request}Access-Control-Request-Headers: a\nSet-Cookie: x=1\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"set-cookie" not in answer.lower()


def test_a_preflight_for_an_unknown_route_is_answered_404(server: RunningServer) -> None:
    check_error(preflight(server, "/v1/nowhere"), 404, "not_found")


def test_by_default_no_other_origin_may(client: httpx.Client) -> None:
    response = client.options("/v1/audio/speech", headers={"origin": OURS})
    assert (response.status_code, response.headers["allow"]) == (204, "POST, OPTIONS")
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_pages_without_an_origin_only_where_it_is_said(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_CORS_ORIGINS=f"null,{OURS}") as server:
        assert preflight(server, "/v1/audio/speech", "null").headers["access-control-allow-origin"] == "null"
        assert any(" WARNING cors_origin_null " in line for line in server.log)


def test_every_origin_may_ask_if_the_setting_says_so(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_CORS_ORIGINS="*") as server:
        response = preflight(server, "/v1/audio/speech", "https://anything.example")
        assert response.headers["access-control-allow-origin"] == "*"
        assert "vary" not in response.headers
