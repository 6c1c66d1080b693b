"""Sends a body of unknown length to a client that speaks HTTP/1.0, by closing the connection at its end.

HTTP/1.0 has no chunks, so that such a body lasts until the connection is closed (RFC 9112, section 6.3). nginx speaks
HTTP/1.0 to the servers behind it if it is not told otherwise. Sanic would send it chunks.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import cast

from sanic import Request
from sanic.headers import format_http1_response
from sanic.http import Http, Stage
from sanic.response import HTTPResponse


def send_until_closed(request: Request, response: HTTPResponse) -> None:
    """Make a response send its body without chunks, and close the connection at its end.

    A body that breaks off must reset the connection (`reset_at_close`), because a plain end would look like the end of
    the whole body.
    """
    stream = cast(Http, request.stream)
    stream.keep_alive = False

    async def send_head(data: bytes, end_stream: bool) -> None:
        response.headers["connection"] = "close"
        stream.stage = Stage.RESPONSE
        stream.response_func = send_body
        await stream._send(format_http1_response(response.status, response.processed_headers))
        await send_body(data, end_stream)

    async def send_body(data: bytes, end_stream: bool) -> None:
        if data:
            await stream._send(data)
        if end_stream:
            stream.response_func = None  # type: ignore[assignment]  # as Sanic itself has it behind the last part
            stream.stage = Stage.IDLE

    stream.response_func = send_head


def reset_at_close(transport: asyncio.Transport) -> None:
    """Make a connection's client see an error when the connection is closed, whatever it has received so far."""
    if sock := transport.get_extra_info("socket"):
        seconds = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, seconds)
