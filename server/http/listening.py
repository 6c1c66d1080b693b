"""Opens the sockets that the server listens on."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from contextlib import ExitStack

from server.config.addresses import is_localhost

BACKLOG = 1024
"""Connections that the system keeps until they are accepted; the client of a further one tries again after a second."""
_LOCALHOST = ("127.0.0.1", "::1")
_NOT_HERE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""Errors of a machine that has no IPv6."""
_TRIES = 10


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on a port of every address of a host; `::` includes IPv4.

    Args:
        host: an address or a name.
        port: the port; 0 takes a free one, the same on every address.

    Raises:
        OSError: another process has the port, or no address of the host is this machine's.
    """
    addresses = _addresses(host)
    for tries_left in reversed(range(_TRIES)):
        try:
            return _listen_on(addresses, port)
        except OSError as error:  # a port that is free on one address may be taken on another
            if port or len(addresses) < 2 or error.errno != errno.EADDRINUSE or not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def _addresses(host: str) -> list[str]:
    if is_localhost(host):
        return list(_LOCALHOST)
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _listen_on(addresses: Iterable[str], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    with ExitStack() as opened:
        for address in addresses:
            try:
                taken = _listen_on_one(address, port)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
                continue
            sockets.append(opened.enter_context(taken))
            port = taken.getsockname()[1]
        if not sockets and missing is not None:
            raise missing
        opened.pop_all()
    return sockets


def _listen_on_one(address: str, port: int) -> socket.socket:
    if ":" not in address:
        return socket.create_server((address, port), backlog=BACKLOG)
    dual = address == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((address, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=dual)


def url_of(sock: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
