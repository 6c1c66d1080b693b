"""Sends the body of an answer piece by piece, within limits on how slow its client may be."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from sanic import Request
from sanic.response import HTTPResponse

from server import log
from server.http.close_delimited import reset_at_close
from server.speech.progress import Patience, Sent

SEND_BYTES = 1 << 16
"""Bytes that are sent at a time; the limits on a slow client look at the time that each piece takes."""


class Sender:
    """Sends a body as fast as its client takes it, within limits on how slow the client may be.

    Args:
        response: the answer that is sent.
        sent: what the audio belongs to.
        timeout: seconds for which the client may take nothing; 0 is no limit.
    """

    def __init__(self, response: HTTPResponse, sent: Sent, timeout: float) -> None:
        self._response, self._patience = response, Patience(sent, timeout)

    async def send(self, part: bytes | bytearray) -> None:
        """Send a part of the body.

        Raises:
            TimeoutError: the client takes nothing, or too little for too long.
        """
        view = memoryview(part)
        for start in range(0, len(view), SEND_BYTES):
            await self._patience.bounded(self._response.send(bytes(view[start : start + SEND_BYTES])))

    async def end(self) -> None:
        """Send the mark of the body's end.

        Raises:
            TimeoutError: as for `send`.
        """
        await self._patience.bounded(self._response.eof())  # type: ignore[no-untyped-call]


async def break_off(request: Request, error: Exception) -> None:
    """Drop the connection without the mark of the body's end, so that no client takes its part for the whole."""
    log.event("stream_broken", level=logging.WARNING, id=request.id, reason=type(error).__name__)
    transport = cast(asyncio.Transport, request.transport)
    if request.version == "1.0":
        reset_at_close(transport)
    transport.abort()
    # Sanic cancels the task of a lost connection, which is this one.
    await asyncio.Event().wait()
