"""Where recordings may come from: what is in the request, files of a folder, and hosts that are listed."""

from __future__ import annotations

import base64
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from server.errors import InvalidRequestError
from server.speech import fetching
from server.speech.fetching import Sources, file_of, is_public

BODY = bytes(range(256)) * 8
HERE = ("127.0.0.1",)


class Handler(BaseHTTPRequestHandler):
    """A host of recordings, and of traps."""

    def do_GET(self) -> None:
        match self.path:
            case "/a.wav?b=c":
                self.answer(200, {"content-length": str(len(BODY))}, BODY)
            case "/chunked":
                chunk = b"%x\r\n%s\r\n" % (len(BODY), BODY)
                self.answer(200, {"transfer-encoding": "chunked"}, chunk + b"0\r\n\r\n")
            case "/redirect":
                self.answer(302, {"location": "http://127.0.0.1:1/", "content-length": "0"})
            case "/long":
                self.answer(200, {"content-length": "10000000000"})
            case "/endless":
                self.answer(200, {})
                self.drip(BODY)
            case "/slow":
                self.answer(200, {"content-length": "50000"})
                self.drip(b"a", 0.05)
            case "/slow-head":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
                self.drip(b"a", 0.05)
            case "/cut":
                self.answer(200, {"content-length": "100"}, b"a")
            case "/no-http":
                self.wfile.write(b"\x00\xff" * 100)
            case _:
                self.answer(404, {"content-length": "0"})

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, part: bytes, pause: float = 0) -> None:
        try:
            while True:
                self.wfile.write(part)
                time.sleep(pause)
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(address: str, *hosts: str) -> bytes:
    return file_of(address, Sources(100_000, hosts))


def refuse(address: str, *hosts: str) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        fetch(address, *hosts)
    assert caught.value.param == "ref_audio"
    return caught.value.message


def test_a_listed_host_is_asked(host: str) -> None:
    assert fetch(f"http://{host}/a.wav?b=c", *HERE) == BODY
    assert fetch(f"HTTP://{host}/chunked#x", *HERE) == BODY


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nothing", "answered 404"),
        ("/redirect", "leads to another one"),
        ("/long", "more than 100000 bytes"),
        ("/endless", "more than 100000 bytes"),
        ("/cut", "could not be fetched"),
        ("/no-http", "could not be fetched"),
    ],
)
def test_what_a_host_answers_is_bounded(host: str, path: str, message: str) -> None:
    assert message in refuse(f"http://{host}{path}", *HERE)


@pytest.mark.parametrize("path", ["/slow", "/slow-head"])
def test_a_slow_host_is_left(host: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 0.3)
    assert "within 0.3 s" in refuse(f"http://{host}{path}", *HERE)


def test_no_host_is_asked_that_is_not_listed(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("it connects")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    assert "fetches none" in refuse(f"http://{host}/a.wav")
    for address in (
        f"http://{host}/a.wav",
        f"http://voices.example@{host}/a.wav",
        f"http://voices.example.{host}/a.wav",
        "http://[::1]/a.wav",
        "http:///a.wav",
        "http://voices.example:99999/",
        "http://[voices.example/",
    ):
        refuse(address, "voices.example")


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[Any]:
    """Have every name mean these addresses; returns where is connected to."""
    connected: list[Any] = []

    def look_up(host: str, port: int, **_: object) -> list[Any]:
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    def connect(place: tuple[str, int], timeout: float) -> socket.socket:
        connected.append(place)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect)
    return connected


PRIVATE = (
    *("127.0.0.1", "10.0.0.1", "192.168.1.7", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "ff02::1"),
    *("::127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b:1::a00:1", "fec0::1", "4000::1"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_of_a_private_address_is_not_asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connected = resolve_to(monkeypatch, "93.184.215.14", address)
    assert "private network" in refuse("https://voices.example/a.wav", "voices.example")
    assert connected == []


def test_a_private_address_that_is_listed_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    connected = resolve_to(monkeypatch, "192.168.1.7")
    refuse("http://voices.home/a.wav", "voices.home", "192.168.1.7")
    assert connected == [("192.168.1.7", 80)]


def test_the_address_that_was_checked_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means another address a moment later is not looked up again."""
    connected = resolve_to(monkeypatch, "93.184.215.14")
    refuse("https://voices.example/a.wav", "voices.example")
    assert connected == [("93.184.215.14", 443)]


def test_public_addresses_are_public() -> None:
    for address in ("93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e"):
        assert is_public(ipaddress.ip_address(address)), address


@pytest.mark.parametrize("size", [0, 1, 2, 3, 99_999, 100_000])
def test_base64_is_read_in_any_spelling(size: int) -> None:
    body = (BODY * 60)[:size] if size else b"\xfb\xef\xff"
    for text in (
        base64.b64encode(body).decode(),
        base64.b64encode(body).decode().rstrip("="),
        base64.urlsafe_b64encode(body).decode(),
        base64.encodebytes(body).decode(),
        f"  data:audio/x-wav;codecs=1;base64,{base64.b64encode(body).decode()} ",
    ):
        assert fetch(text) == body


def test_base64_of_many_megabytes_is_read_in_pieces() -> None:
    body = BODY * 2000
    assert file_of(base64.b64encode(body).decode(), Sources(len(body))) == body
    with pytest.raises(InvalidRequestError, match=f"more than {len(body) - 1} bytes"):
        file_of(base64.b64encode(body).decode(), Sources(len(body) - 1))


@pytest.mark.parametrize(
    "text",
    ["a", "a===", "=aaa", "aa=a", "ääää", "a$aa", "data:,", "data:audio/wav;base64", "data:audio/wav,aaaa", "x:y"],
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    refuse(text)
