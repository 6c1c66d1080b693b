"""A body of unknown length for HTTP/1.0, whose end is the end of the connection.

HTTP/1.0 has no chunks; https://www.rfc-editor.org/rfc/rfc9112#section-6.3 lets such a body last until the connection is
closed. Default nginx speaks HTTP/1.0 to what is behind it. Sanic would send it chunks.
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
    """Have what is sent of a response from now on, head first, be sent as it is, and the connection closed behind it.

    A body that breaks off must reset the connection (`reset_at_close`): a plain end would pass for that of the whole.
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
    """Have a connection's client see an error when it is closed now, whatever it has received so far."""
    if sock := transport.get_extra_info("socket"):
        seconds = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, seconds)
