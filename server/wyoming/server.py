"""The Wyoming protocol over TCP, for Home Assistant: listening, announcing, stopping."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import psutil
from zeroconf import Error as ZeroconfError
from zeroconf import InterfaceChoice
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from server import log
from server.wyoming.conversation import Conversation, Doors
from server.wyoming.events import EVENT_BYTES

SERVICE = "_wyoming._tcp.local."
"""What Home Assistant looks for."""
CLOSING_SECONDS = 5
"""For which a client may leave what it has been sent unread when the conversation has ended."""
_ANY = ("0.0.0.0", "::")


class WyomingServer:
    """Serves on sockets that listen already.

    Args:
        doors: what connections may use.
        sockets: where it listens.
        announce: whether the local network is told, by zeroconf; nobody but this machine is told of a loopback address.
    """

    def __init__(self, doors: Doors, sockets: Sequence[socket.socket], *, announce: bool) -> None:
        self._doors, self._sockets, self._announce = doors, sockets, announce
        self._servers: list[asyncio.Server] = []
        self._conversations: dict[asyncio.Task[None], Conversation] = {}
        self._numbers = count(1)
        self._announcement: AsyncZeroconf | None = None

    async def start(self) -> None:
        """Begin to serve, and say so."""
        for sock in self._sockets:
            self._servers.append(await asyncio.start_server(self._converse, sock=sock, limit=EVENT_BYTES))
        host, port = self._sockets[0].getsockname()[:2]
        addresses = _addresses(host)
        if self._announce and addresses:
            try:
                self._announcement = await announce(addresses, port)
            except (OSError, ZeroconfError) as error:
                log.event("wyoming_not_announced", level=logging.WARNING, reason=str(error) or type(error).__name__)
        announced = " ".join(addresses) if self._announcement else None
        log.event("wyoming_listening", uri=f"tcp://{host}:{port}", announced=announced, access="open to all")

    async def stop(self, seconds: float, at_once: asyncio.Event) -> None:
        """Take no more connections, let texts be heard to their end, and break off the rest.

        Args:
            seconds: for which texts may be heard.
            at_once: ends that time when it is set.
        """
        if self._announcement is not None:
            await self._announcement.async_close()
        for server in self._servers:
            server.close()
        for conversation in self._conversations.values():
            conversation.leave()
        if self._conversations:
            heard = asyncio.wait(list(self._conversations))
            waits: list[asyncio.Task[Any]] = [asyncio.create_task(heard), asyncio.create_task(at_once.wait())]
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        for task in self._conversations:
            task.cancel()
        if self._conversations:
            await asyncio.wait(self._conversations)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._conversations) >= self._doors.limits.connections:
            writer.close()
            return
        conversation = Conversation(self._doors, f"wyoming-{next(self._numbers)}", reader, writer)
        self._conversations[task] = conversation
        try:
            await conversation.run()
            await _close(writer)
        except (asyncio.CancelledError, TimeoutError):
            pass  # the server stops, or the client takes nothing
        except Exception as error:
            log.event("unforeseen_error", level=logging.ERROR, error=repr(error))
        finally:
            writer.transport.abort()  # where it is not closed yet, what the client has not taken is given up
            del self._conversations[task]


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection when its client has taken what it has been sent.

    Raises:
        TimeoutError: the client has not taken it.
    """
    writer.close()
    async with asyncio.timeout(CLOSING_SECONDS):
        with suppress(ConnectionError):
            await writer.wait_closed()


async def announce(
    addresses: Sequence[str], port: int, interfaces: Sequence[str] | InterfaceChoice = InterfaceChoice.All
) -> AsyncZeroconf:
    """Tell the local network of a server, until what is returned is closed.

    Raises:
        OSError, zeroconf.Error: it cannot be told.
    """
    announcement = AsyncZeroconf(interfaces=interfaces)
    name = f"qwen3-tts-edge-{socket.gethostname().partition('.')[0]}"
    service = AsyncServiceInfo(SERVICE, f"{name}.{SERVICE}", port=port, parsed_addresses=list(addresses))
    try:
        await announcement.async_register_service(service, allow_name_change=True)
    except BaseException:
        await announcement.async_close()
        raise
    return announcement


def _addresses(host: str) -> list[str]:
    """The IPv4 addresses by which others reach what listens there."""
    families = psutil.net_if_addrs().values()
    own = [address.address for family in families for address in family if address.family is socket.AF_INET]
    return [address for address in own if not address.startswith("127.") and (host in _ANY or host == address)]
