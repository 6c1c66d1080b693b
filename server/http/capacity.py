"""How many connections there may be, and what happens when there are more."""

from __future__ import annotations

import asyncio
import errno
import sys
from typing import Any, Protocol

from server import log

RESERVED_DESCRIPTORS = 64
"""Of the limit: for models, logs and the listening sockets."""
LEAST_CONNECTIONS = 16

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Connection(Protocol):
    """What is asked of a connection here."""

    @property
    def is_spare(self) -> bool: ...

    @property
    def order(self) -> tuple[bool, float]: ...

    def abort(self) -> None: ...


class OpenConnections:
    """All connections of a server, at most so many.

    For one more the one is closed that has waited longest without a request that has been received; where each has
    one, the new one is turned away.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Connection] = set()
        self._spare: list[tuple[tuple[bool, float], Connection]] = []
        """Those that could be closed when last looked for, the first to be closed at the end."""
        self._full = log.Seldom("connections_full")

    def add(self, new: Connection) -> bool:
        """Make room for a connection; False if there is none."""
        if len(self._open) >= self._most:
            self._full.event(most=self._most)
            if oldest := self._take_spare() or self._look_for_spare():
                self._open.discard(oldest)
                oldest.abort()
        self._open.add(new)
        return len(self._open) <= self._most

    def _look_for_spare(self) -> Connection | None:
        found = [(connection.order, connection) for connection in self._open if connection.is_spare]
        self._spare = sorted(found, key=lambda pair: pair[0], reverse=True)
        return self._take_spare()

    def _take_spare(self) -> Connection | None:
        """The first to be closed of those found, which many that come at once share: looking for them takes long."""
        while self._spare:
            order, connection = self._spare.pop()
            if connection in self._open and connection.is_spare and connection.order == order:
                return connection
        return None

    def discard(self, connection: Connection) -> None:
        """It is gone."""
        self._open.discard(connection)


def connections_possible(wanted: int) -> int:
    """So many connections, or fewer where the limit of file descriptors does not leave room for them."""
    if sys.platform == "win32":
        return wanted
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(LEAST_CONNECTIONS, limit - RESERVED_DESCRIPTORS))


def limit_accept_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log once in a while that no connection can be accepted; asyncio says so with a trace, many times a second."""
    told = log.Seldom("cannot_accept")

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES and "socket" in context:
            told.event(reason=error.strerror)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(report)
