"""How many connections there may be, what happens when there are more, and how many have their turn at a time."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from server import log
from server.errors import BusyError

RESERVED_DESCRIPTORS = 64
"""File descriptors that are kept free for models, logs and listening sockets."""
LEAST_CONNECTIONS = 16
UPLOADS_AT_ONCE = 4
"""Of the longest bodies; more of shorter ones."""

_BESIDE_RECORDING = 1 << 21

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Connection(Protocol):
    """What this module uses of a connection."""

    @property
    def is_spare(self) -> bool: ...

    @property
    def order(self) -> tuple[bool, float]: ...

    def abort(self) -> None: ...


class OpenConnections:
    """The open connections of a server, up to a limit.

    For one more, the connection is closed that has waited longest without a complete request; if each has one, the new
    connection is turned away.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Connection] = set()
        self._spare: list[tuple[tuple[bool, float], Connection]] = []
        """The connections that could be closed when they were last sorted; the first to be closed is at the end."""
        self._full = log.Seldom("connections_full")

    def add(self, new: Connection) -> bool:
        """Add a connection, closing another one if need be; returns False if there is no room for it."""
        if len(self._open) >= self._most:
            self._full.event(most=self._most)
            if oldest := self._take_spare() or self._look_for_spare():
                self._open.discard(oldest)
                oldest.abort()
        else:
            self._spare.clear()  # else connections that are closed by now would stay in memory
        self._open.add(new)
        return len(self._open) <= self._most

    def _look_for_spare(self) -> Connection | None:
        found = [(connection.order, connection) for connection in self._open if connection.is_spare]
        self._spare = sorted(found, key=lambda pair: pair[0], reverse=True)
        return self._take_spare()

    def _take_spare(self) -> Connection | None:
        """Take the first to be closed of those that were found; connections that arrive together share one search."""
        while self._spare:
            order, connection = self._spare.pop()
            if connection in self._open and connection.is_spare and connection.order == order:
                return connection
        return None

    def discard(self, connection: Connection) -> None:
        """Remove a connection that is closed."""
        self._open.discard(connection)


class Uploads:
    """Bounds the bodies that are longer than others because they bring recordings along.

    Args:
        recording: the most bytes of a recording.
    """

    def __init__(self, recording: int) -> None:
        self.longest = recording * 4 // 3 + _BESIDE_RECORDING
        """Bytes of a body: a recording in base64, and the other fields."""
        self._left = UPLOADS_AT_ONCE * self.longest

    @contextmanager
    def one(self, length: int, usual: int) -> Iterator[None]:
        """Count a body from its first byte until its request has ended, since it is in memory for so long.

        Args:
            length: of the body, in bytes.
            usual: bytes that any body may have.

        Raises:
            BusyError: there are as many long bodies as there may be.
        """
        counted = length if length > usual else 0
        if counted > self._left:
            raise BusyError("many long recordings are here already; try again soon")
        self._left -= counted
        try:
            yield
        finally:
            self._left += counted


class Turns:
    """Lets so many requests begin or end in a round of the event loop; more that do at once wait in line.

    A request takes the loop half a millisecond before anything is awaited, and a quarter of one when its client has
    left. Hundreds that come or leave together would be one round of the loop, in which no other event has its turn.

    Args:
        most: turns in one round.
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._line: deque[Callable[[], None]] = deque()
        self._counting = False

    async def take(self) -> None:
        """Wait for a turn, no longer than for those who came before."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call(lambda: None if turn.done() else turn.set_result(None))  # it is done if its client has left
        await turn

    def call(self, act: Callable[[], None]) -> None:
        """Do something in its turn, which may be now."""
        if not self._counting:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._begin_round)
        if self._left:
            self._left -= 1
            act()
        else:
            self._line.append(act)

    def _begin_round(self) -> None:
        self._left = self._most
        while self._line and self._left:
            self._left -= 1
            self._line.popleft()()
        self._counting = self._left < self._most
        if self._counting:
            asyncio.get_running_loop().call_soon(self._begin_round)


def connections_possible(wanted: int) -> int:
    """Lower a wanted number of connections to what the limit of file descriptors leaves room for."""
    if sys.platform == "win32":
        return wanted
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(LEAST_CONNECTIONS, limit - RESERVED_DESCRIPTORS))


def limit_accept_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log once in a while that no connection can be accepted; asyncio would log a trace many times a second."""
    told = log.Seldom("cannot_accept")

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES and "socket" in context:
            told.event(reason=error.strerror)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(report)
