"""Who gets in: no route without a key, no body before it, and no page of another origin where there is no key."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from sanic import Sanic

from server import log
from server.cli.startup import open_pool
from server.config import Settings
from server.http.access import KeyRing
from server.http.app import API_PREFIXES, REFUSALS_LOGGED, create_app
from server.http.connections import GuardedProtocol
from server.metrics import Metrics
from server.models.catalogue import Bundles
from tests.server.answers import GOOD, check_error
from tests.server.fakes import FakeEngine, write_bundle
from tests.server.http import test_sanic
from tests.server.running import FAKE, PATIENCE_SECONDS, RunningServer, fetch, run_server, wait_until

several_apps = test_sanic.several_apps

PUBLIC = {
    "/",
    "/voices",
    "/voices/",
    "/developers",
    "/developers/",
    "/web/<asked:str>/<name:str>",
    "/web/<name:str>",
    "/livez",
    "/readyz",
    "/health",
    *(
        prefix + path
        for prefix in API_PREFIXES
        for path in (
            "/models/<name:str>",
            "/audio/voices",
            "/audio/models",
            "/openapi.json",
            "/index.html",
            "/swagger/<name:str>",
        )
    ),
}
"""All that answers without a key; whoever adds a route decides here."""


def make_app(settings: Settings) -> Sanic:
    """The server's app, without a model."""
    metrics = Metrics()
    app = create_app(settings, open_pool(settings, Bundles([], None), FakeEngine.load, metrics), {}, metrics)
    Sanic.unregister_app(app)
    return app


def routes(tmp_path: Path) -> set[tuple[str, str]]:
    """Path and method of everything that the server has."""
    app = make_app(Settings(models_dir=tmp_path))
    return {(route.uri, method) for route in app.router.routes for method in route.methods}


def test_every_route_wants_a_key_but_these(fake_server: RunningServer, tmp_path: Path) -> None:
    found = routes(tmp_path)
    assert {path for path, _ in found} >= PUBLIC
    assert len(found) > len(PUBLIC)
    for path, method in found:
        url = fake_server.url + re.sub("<.*?>", "x", path)
        for headers in ({}, {"authorization": "Bearer sk-wrong"}, {"authorization": "Basic b3RoZXI6"}):
            answer = fetch(method, url, headers=headers)
            public = path in PUBLIC and method in {"GET", "HEAD"}
            assert (answer.status_code == 401) is not public, (method, path, answer.status_code)
            if not public:
                assert answer.headers["www-authenticate"] == "Bearer"


def test_a_route_is_read_with_head_as_with_get(fake_server: RunningServer, tmp_path: Path) -> None:
    with fake_server.client() as client:
        for path, method in routes(tmp_path):
            if method == "GET":
                url = path.replace("<name:str>", "custom")
                got, head = client.get(url), client.head(url)
                assert (head.status_code, head.content) == (got.status_code, b""), path
                differing = {"x-request-id", "content-length"} if path == "/metrics" else {"x-request-id"}
                assert dict(head.headers).keys() == dict(got.headers).keys(), path
                assert {name for name in got.headers if got.headers[name] != head.headers[name]} <= differing
                assert "alt-svc" not in got.headers


@pytest.mark.parametrize("framing", ["Content-Length: 2000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("authorization", ["", "Authorization: Bearer sk-wrong\r\n"])
def test_a_key_is_wanted_before_the_body(fake_server: RunningServer, framing: str, authorization: str) -> None:
    """The answer comes while nothing or little of the body is there, and the connection ends."""
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\n{authorization}{framing}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", fake_server.port), PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode())
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nconnection: close\r\n" in received
    assert b'"code": "invalid_api_key"' in received


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server without a key, with a name of its own and an origin that may call it."""
    scratch = tmp_path_factory.mktemp("keyless")
    write_bundle(scratch / "models", "custom")
    settings = {
        "KW_MODELS_DIR": str(scratch / "models"),
        "KW_SECRET_API_KEY": "",
        "KW_ALLOWED_HOSTS": "speech.example",
        "KW_CORS_ORIGINS": "https://app.example",
    }
    with run_server(FAKE, scratch, **settings) as server:
        server.wait_ready()
        yield server


def ask(server: RunningServer, method: str = "POST", path: str = "/v1/audio/speech", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value.replace("OWN", str(server.port)) for name, value in headers.items()}
    body = None if method == "GET" else GOOD
    return fetch(method, server.url + path, json=body, headers=named)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "localhost:OWN"},
        {"host": "LOCALHOST"},
        {"host": "[::1]:OWN"},
        {"host": "127.0.0.1"},
        {"host": "a.localhost:OWN"},
        {"host": "Speech.Example"},
        {"host": "speech.example:8443"},
        {"origin": "http://127.0.0.1:OWN"},
        {"origin": "http://localhost:OWN", "host": "localhost:OWN"},
        {"origin": "http://127.0.0.1:OWN", "sec_fetch_site": "same-origin"},
        {"origin": "https://speech.example", "host": "speech.example"},
        {"origin": "https://speech.example", "sec_fetch_site": "same-origin"},
        {"origin": "https://speech.example"},
        {"origin": "null", "sec_fetch_site": "same-origin"},
        {"origin": "https://app.example", "sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "none"},
    ],
)
def test_programs_and_its_own_pages_come_in(keyless: RunningServer, headers: dict[str, str]) -> None:
    assert ask(keyless, **headers).status_code == 200
    assert ask(keyless, "GET", "/", **headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"origin": "https://evil.example"}, "KW_CORS_ORIGINS"),
        ({"origin": "https://evil.example", "content_type": "text/plain"}, "KW_CORS_ORIGINS"),
        ({"origin": "http://127.0.0.1:1"}, "KW_CORS_ORIGINS"),
        ({"origin": "http://localhost:OWN"}, "KW_CORS_ORIGINS"),
        ({"origin": "https://app.example.evil.example"}, "KW_CORS_ORIGINS"),
        ({"origin": "null"}, "KW_CORS_ORIGINS"),
        ({"sec_fetch_site": "cross-site"}, "other sites"),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}, "other sites"),
        ({"host": "evil.example:OWN"}, "KW_ALLOWED_HOSTS"),
        ({"host": "evil.example:OWN", "origin": "http://evil.example:OWN"}, "KW_ALLOWED_HOSTS"),
        ({"host": "evil.example", "sec_fetch_site": "same-origin"}, "KW_ALLOWED_HOSTS"),
        ({"host": "127.0.0.1.evil.example"}, "KW_ALLOWED_HOSTS"),
        ({"host": "192.0.2.7"}, "KW_ALLOWED_HOSTS"),
    ],
)
def test_pages_of_other_origins_are_refused_where_no_key_is_needed(
    keyless: RunningServer, headers: dict[str, str], says: str
) -> None:
    before = len(keyless.events("submitted"))
    assert says in check_error(ask(keyless, **headers), 403, "forbidden")
    assert len(keyless.events("submitted")) == before
    if "sec_fetch_mode" not in headers:
        for path in ("/v1/models", "/", "/livez", "/nowhere"):
            check_error(ask(keyless, "GET", path, **headers), 403, "forbidden")


def test_a_link_to_its_pages_may_be_followed(keyless: RunningServer) -> None:
    followed = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(keyless, "GET", "/", **followed, sec_fetch_dest="document").status_code == 200
    check_error(ask(keyless, "GET", "/", **followed, sec_fetch_dest="iframe"), 403, "forbidden")


def test_the_body_of_another_page_is_not_read(keyless: RunningServer) -> None:
    head = (
        "POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nContent-Length: 9\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", keyless.port), PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode())
        assert b"".join(iter(lambda: connection.recv(1 << 16), b"")).startswith(b"HTTP/1.1 403 ")


def test_a_server_without_a_key_that_is_for_everyone_has_no_name(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_SECRET_API_KEY": "", "KW_AUTH": "off"}
    with run_server(FAKE, tmp_path, **settings, KW_HOST="0.0.0.0") as server:
        url = f"http://127.0.0.1:{server.port}/livez"
        assert fetch("GET", url, headers={"host": "speech.example"}).status_code == 200
    with run_server(FAKE, tmp_path, **settings) as server:
        check_error(fetch("GET", f"{server.url}/livez", headers={"host": "speech.example"}), 403, "forbidden")
    with run_server(FAKE, tmp_path, **settings, KW_ALLOWED_HOSTS="*") as server:
        assert fetch("GET", f"{server.url}/livez", headers={"host": "speech.example"}).status_code == 200


def test_the_log_says_who_asked_and_what_was_wrong(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_TRUSTED_PROXIES": "127.0.0.1"}
    with run_server(FAKE, tmp_path, **settings) as server, server.client() as client:
        server.wait_ready()
        fetch("GET", f"{server.url}/v1/models", headers={"x-request-id": "stranger"})
        forwarded = {"x-forwarded-for": "1.2.3.4, 203.0.113.9", "x-request-id": "wrong"}
        client.post("/v1/audio/speech", json={**GOOD, "voice": "private words"}, headers=forwarded)
        client.post("/v1/audio/speech", json={**GOOD, "voice": "private words*a*b"}, headers={"x-request-id": "mix"})
        client.get("/nowhere", headers={"x-request-id": "nowhere"})

        def line(name: str) -> str:
            return next((line for line in server.log if f" request id={name} " in line), "")

        wait_until(lambda: line("nowhere"), "all is logged")
        assert " client=127.0.0.1 " in line("stranger")
        assert " status=401 code=invalid_api_key" in line("stranger")
        assert " client=203.0.113.9 " in line("wrong")
        assert (
            " status=400 code=invalid_value param=voice reason=\"there is no such voice; this model's voices are "
            in line("wrong")
        )
        assert ' reason="term 1 of the voice formula must be ' in line("mix")
        assert " status=404 code=not_found" in line("nowhere")
        assert "private words" not in "\n".join(server.log)


def test_a_stranger_is_refused_once_and_fills_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each refusal looks at the key once; of many in a second few are logged, and the rest is told as a number."""
    caplog.set_level(logging.INFO)
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr(log, "time", clock)
    check, checked = KeyRing.check, []
    monkeypatch.setattr(KeyRing, "check", lambda *given: checked.append(given) or check(*given))  # type: ignore[func-returns-value]
    app = make_app(Settings(models_dir=tmp_path, secret_api_key=["sk-right"]))
    number = REFUSALS_LOGGED + 5

    def head(path: str, key: str) -> bytes:
        lines = f"{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
        return f"{lines}content-length: 9\r\n\r\n".encode()

    async def test() -> None:
        async with test_sanic.serving(app, GuardedProtocol) as (_, port):
            for _ in range(number):
                answer = await test_sanic.ask(port, head("POST /v1/audio/speech", "sk-wrong"))
                assert answer.startswith(b"HTTP/1.1 401 ")
            assert len(checked) == number
            for _ in range(number):
                answer = await test_sanic.ask(port, head("POST /v1/audio/speech", "sk-right") + b"{}       ")
                assert answer.startswith(b"HTTP/1.1 400 ")
            clock.monotonic = lambda: 1.0
            await test_sanic.ask(port, head("POST /v1/audio/speech", "sk-wrong"))

    test_sanic.run(test)
    statuses = re.findall(r"status=(\d+)", caplog.text)
    assert [statuses.count(status) for status in ("401", "400")] == [REFUSALS_LOGGED + 1, number]
    assert "refusals_not_logged times=5\n" in caplog.text


def test_a_variable_that_seems_to_hold_a_key_is_warned_of(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    unknown = {"KW_API_KEY": "sk-hidden", "KW_PROT": "1"}
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), **unknown) as server:
        assert server.url
        assert any(" WARNING unknown_setting variable=KW_API_KEY" in line for line in server.log)
        assert any(" INFO unknown_setting variable=KW_PROT" in line for line in server.log)
        assert "sk-hidden" not in "\n".join(server.log)


def test_every_address_of_a_name_answers(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_HOST="LocalHost") as server:
        server.wait_ready()
        for host in ("127.0.0.1", "[::1]"):
            assert fetch("GET", f"http://{host}:{server.port}/livez").status_code == 200
        assert any(f"also=http://[::1]:{server.port} " in line for line in server.log)
        assert server.stop() == 0
