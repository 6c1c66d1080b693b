"""Hosts as text, the addresses of clients, and the sockets that a host means."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any

import pytest

from server.config import addresses
from server.config.addresses import ClientAddresses
from server.http import listening


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("localhost:3000", "localhost"),
        ("LocalHost", "localhost"),
        ("127.0.0.1:3000", "127.0.0.1"),
        ("[::1]:3000", "::1"),
        ("[::1]", "::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("speech.example.", "speech.example"),
        ("speech.example:", "speech.example"),
        ("", ""),
        ("a b", ""),
        ("user@localhost", ""),
        ("localhost:x", ""),
        ("localhost:3000:3000", ""),
    ],
)
def test_the_port_is_removed_from_an_authority(authority: str, host: str) -> None:
    assert addresses.without_port(authority) == host


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("notlocalhost", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_a_host_is_known_to_be_loopback_or_not(host: str, loopback: bool) -> None:
    assert addresses.is_loopback(host) is loopback


PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("[::1]", ["203.0.113.9"], "203.0.113.9"),
        ("[::ffff:10.0.0.1]", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9 , 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9:1234"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:1234"], "2001:db8::1"),
        ("10.0.0.1", ["1.1.1.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["x" * 5000 + "\n"], "10.0.0.1"),
        ("", [], None),
    ],
)
def test_the_clients_address_is_the_last_that_is_no_trusted_proxy(
    peer: str, forwarded: list[str], client: str | None
) -> None:
    assert ClientAddresses(PROXIES).of(peer, forwarded) == client


def families(sockets: list[socket.socket]) -> dict[str, int]:
    """The addresses and ports that sockets have; closes them."""
    found = {sock.getsockname()[0]: sock.getsockname()[1] for sock in sockets}
    for sock in sockets:
        sock.close()
    return found


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("host", ["localhost", "speech.localhost"])
def test_localhost_is_both_loopback_addresses_whatever_a_resolver_says(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it was asked"))
    found = families(listening.listen(host, 0))
    assert set(found) == {"127.0.0.1", "::1"}
    assert len(set(found.values())) == 1


def test_a_name_is_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.2", "::1", "127.0.0.3", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known)
    assert set(families(listening.listen("speech.example", 0))) == {"127.0.0.2", "::1", "127.0.0.3"}


def test_the_address_of_all_is_both_kinds() -> None:
    sockets = listening.listen("::", 0)
    port = sockets[0].getsockname()[1]
    assert answers("127.0.0.1", port) and answers("::1", port)
    assert listening.url_of(sockets[0]) == f"http://[::]:{port}"
    families(sockets)


def test_localhost_is_served_on_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.create_server

    def create(address: tuple[str, int], **options: Any) -> socket.socket:
        if ":" in address[0]:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return real(address, **options)

    monkeypatch.setattr(socket, "create_server", create)
    assert set(families(listening.listen("localhost", 0))) == {"127.0.0.1"}
    with pytest.raises(OSError, match="Cannot assign"):
        listening.listen("::1", 0)


def test_a_port_that_is_taken_on_one_address_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            listening.listen("localhost", port)
        assert not answers("::1", port), "nothing is left listening"
