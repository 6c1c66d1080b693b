"""Reads hosts and origins, tells which hosts mean this machine, and finds the client's address of a request."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

ANY = "*"
NO_ORIGIN = "null"
"""What browsers send for pages that have no origin, such as files and sandboxed frames."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s@*,]+")
"""An origin as browsers send it (RFC 6454, section 6.2); browser extensions have schemes of their own."""
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")
_PORT = re.compile(r":\d{0,5}$")
_WITH_PORT = re.compile(r"([^\[\]:]+|\[[^\[\]]+\]):\d+")


def host_of(text: str) -> str:
    """Bring a host that a person has written into one form: lower case, without blanks and the brackets of IPv6.

    Raises:
        ValueError: the text is neither an IP address nor a name.
    """
    host = text.strip().lower()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        if _NAME.fullmatch(host):
            return host.rstrip(".")
    if _WITH_PORT.fullmatch(host):
        raise ValueError(f"{text!r} has a port; that is KW_PORT")
    raise ValueError(f"{text!r} is neither an IP address nor a name")


def origin_of(text: str) -> str:
    """Bring an origin into the form that browsers send: lower case, without a slash at its end.

    Raises:
        ValueError: the text is not an origin, or it has a path or a `*`.
    """
    origin = text.lower().rstrip("/")
    if origin != NO_ORIGIN and not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{text!r} is not an origin such as https://app.example, without a path and without a *")
    return origin


def is_localhost(host: str) -> bool:
    """Whether a name means the loopback addresses, whatever a resolver answers (RFC 6761, section 6.3)."""
    return host == "localhost" or host.endswith(".localhost")


def is_loopback(host: str) -> bool:
    """Whether a host, in the form of `host_of`, means the loopback addresses without asking a resolver."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return is_localhost(host)


def resolves_to_loopback(host: str) -> bool:
    """Whether each address of a host is a loopback address.

    Raises:
        ValueError: the host has no address.
    """
    if is_loopback(host):
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"{host!r} has no address: {error.strerror or error}") from None
    return all(is_loopback(str(address[0])) for *_, address in found)


def without_port(authority: str) -> str:
    """Return the host of a `Host` header, or of an origin without its scheme, in the form of `host_of`, or nothing."""
    for bare in (authority, _PORT.sub("", authority)):
        with suppress(ValueError):
            return host_of(bare)
    return ""


class ClientAddresses:
    """Finds the addresses of clients for the log.

    Args:
        proxies: networks of trusted proxies, whose `X-Forwarded-For` is believed.
    """

    def __init__(self, proxies: Sequence[IpNetwork]) -> None:
        self._proxies = proxies

    def of(self, peer: str, forwarded: Iterable[str]) -> str | None:
        """Return the address of a client; behind trusted proxies it is the last address that is not one of theirs.

        Args:
            peer: the address at the other end of the connection; IPv6 may be in brackets. Empty is a Unix domain
                socket, at whose other end is a part of this server that tells the address in the header.
            forwarded: the values of the headers `X-Forwarded-For`.
        """
        peer = without_port(peer)
        if peer and not self._trusts(peer):
            return peer
        return self._first_stranger(reversed(",".join(forwarded).split(",")), peer) or None

    def _first_stranger(self, hops: Iterable[str], peer: str) -> str:
        """Walk back from the peer until an address is not trusted, or until a hop is not an address."""
        for hop in hops:
            address = without_port(hop.strip())
            try:
                ipaddress.ip_address(address)
            except ValueError:
                return peer
            peer = address
            if not self._trusts(peer):
                return peer
        return peer

    def _trusts(self, address: str) -> bool:
        if not self._proxies:
            return False
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:  # dual-stack sockets show IPv4 peers so
            found = found.ipv4_mapped
        return any(found in network for network in self._proxies)
