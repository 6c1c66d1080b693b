"""The server as an ASGI application, for an engine such as Ray Serve that runs those.

Sanic has an ASGI mode of its own. It lacks most of what this server relies on: the limits on bodies and their deadline,
the check of the key before a body is read, WebSockets, draining, and connections that can be broken off. So the server
runs as it always does, in a thread, on a socket of the Unix domain that nobody else can reach, and the application is
its only client: it hands requests over to it and answers back. When its client leaves, it closes its connection to the
server, which then does what it does for anybody who leaves.

ASGI is https://asgi.readthedocs.io/en/latest/specs/www.html.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import h11
from sanic import Sanic
from websockets.asyncio.client import unix_connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import CloseCode
from websockets.http11 import Response
from websockets.typing import Subprotocol

from server.errors import ApiError, InvalidRequestError, ModelUnavailableError, StoppingError
from server.http.asgi_conversation import Message, Receive, Scope, Send, converse, either
from server.http.error_answers import body_of_error
from server.http.lifecycle import ServerThread

Headers = list[tuple[bytes, bytes]]

READ_BYTES = 1 << 16
SENT_BYTES = 1 << 16
"""Of a body, before the server has taken most of it: what it does not take is not copied."""
LAST_SECONDS = 1.0
"""What the server has answered arrives within this time after its end."""
READY_SECONDS = 0.1
"""How often the server is asked at its start whether it is ready."""
_OF_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
"""Headers that hold for one connection, and are not handed on (RFC 9110, section 7.6.1)."""
_OF_HANDSHAKE = frozenset(
    (b"host", b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-protocol")
)
_CLIENT = b"x-forwarded-for"


class BrokenOff(Exception):
    """The server broke off its answer, which has begun; the engine shall do so too."""


class NotReady(Exception):
    """The server cannot speak.

    Args:
        message: why.
        passing: whether it may be able to soon, without anybody's doing.
    """

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class AsgiApplication:
    """Serves a Sanic app to an ASGI engine, from the engine's lifespan event of its start to that of its end.

    Args:
        app: the app.
        drain_seconds: that requests under way have to finish at the end.
        left_out: names of headers, in lower case, that answers shall not have since the engine adds them itself.
    """

    def __init__(self, app: Sanic[Any, Any], drain_seconds: float, left_out: Collection[bytes] = ()) -> None:
        self._left_out = _OF_CONNECTION | frozenset(left_out)
        self._folder = TemporaryDirectory(prefix="qwen3-tts-")  # which only this user may look into
        self._path = str(Path(self._folder.name) / "http")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(self._path)
        self._server = ServerThread(app, [listening], drain_seconds)
        self._unanswered: set[asyncio.WriteTransport] = set()
        """Connections of requests of which nothing has been answered yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what one scope stands for: the application's life, a request, or a WebSocket."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            raise ValueError(f"there is no scope {scope['type']}")

    # Its life

    async def start(self) -> None:
        """Begin to serve, and wait until the default model is ready.

        Raises:
            NotReady: it will not be without somebody's doing.
        """
        await asyncio.to_thread(self._server.start)
        while True:
            try:
                return await self.check_ready()
            except NotReady as error:
                if not error.passing:
                    raise
            if not self._server.is_alive:
                raise NotReady("the server has ended; its log says why", passing=False)
            await asyncio.sleep(READY_SECONDS)

    async def stop(self) -> None:
        """Drain, and end."""
        await asyncio.to_thread(self._server.stop)
        self._folder.cleanup()
        # A connection that came just as the server ended may not have been closed, and nobody will ever answer it.
        if self._unanswered:
            await asyncio.sleep(LAST_SECONDS)
        for transport in self._unanswered:
            transport.abort()

    async def check_ready(self) -> None:
        """Ask `/readyz`.

        Raises:
            NotReady: it is not.
        """
        heard: list[Message] = []
        asked = asyncio.Event()

        async def receive() -> Message:
            if asked.is_set():
                await asyncio.Event().wait()  # this client does not leave
            asked.set()
            return {"type": "http.request"}

        async def send(message: Message) -> None:
            heard.append(message)

        await self._request({"method": "GET", "raw_path": b"/readyz", "headers": []}, receive, send)
        if heard[0]["status"] == 200:
            return
        told = json.loads(b"".join(message["body"] for message in heard[1:]))
        raise NotReady(told["message"], passing=told["error"]["code"] != ModelUnavailableError.code)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            try:
                await (self.start() if event == "lifespan.startup" else self.stop())
            except Exception as error:
                await send({"type": f"{event}.failed", "message": str(error)})
                return
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return

    # A request

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand over a request and its answer; whoever ends first, the client or the server, ends both."""
        try:
            head = _head_of(scope)
        except h11.LocalProtocolError as error:
            await _refuse(InvalidRequestError(f"the request is malformed: {error}"), send)
            return
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
        except OSError:
            await _refuse(StoppingError("the server is stopping"), send)
            return
        connection = h11.Connection(h11.CLIENT)
        self._unanswered.add(writer.transport)
        # This comes before anything is read: h11 does not call it an error that a connection ends before its request.
        writer.write(connection.send(head) or b"")
        try:
            await either(self._answer(connection, reader, writer, send), _ask(connection, writer, receive))
        finally:
            self._unanswered.discard(writer.transport)
            writer.transport.abort()

    async def _answer(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, send: Send
    ) -> None:
        begun = False
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    connection.receive_data(await reader.read(READ_BYTES))
                elif isinstance(event, h11.Response):
                    self._unanswered.discard(writer.transport)
                    headers = self._kept(event.headers)
                    await send({"type": "http.response.start", "status": event.status_code, "headers": headers})
                    begun = True
                elif isinstance(event, h11.Data):
                    await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
        except (h11.RemoteProtocolError, ConnectionError) as error:
            if begun:
                raise BrokenOff("the server broke off its answer") from error
            await _refuse(StoppingError("the server is stopping"), send)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _kept(self, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        return [(name.lower(), value) for name, value in headers if name.lower() not in self._left_out]

    # A WebSocket

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold a conversation with the server for a client, until either ends it."""
        await receive()  # the event websocket.connect, which says nothing
        headers = _forwarded(scope)
        host = dict(headers).get(b"host", b"localhost").decode("latin-1")
        try:
            server = await unix_connect(
                self._path,
                f"ws://{host}{_target_of(scope).decode('ascii')}",
                additional_headers=[
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in headers
                    if name not in _OF_HANDSHAKE
                ],
                subprotocols=[Subprotocol(name) for name in scope.get("subprotocols", ())] or None,
                user_agent_header=None,
                compression=None,
                max_size=None,
                ping_interval=None,
                proxy=None,
            )
        except InvalidStatus as error:
            await self._deny(scope, error.response, send)
            return
        except (InvalidHandshake, InvalidURI, ValueError, OSError):
            await send({"type": "websocket.close", "code": CloseCode.INTERNAL_ERROR})
            return
        told = [(b"x-request-id", server.response.headers["x-request-id"].encode())] if server.response else []
        answer = self._kept(told)
        await send({"type": "websocket.accept", "subprotocol": server.subprotocol, "headers": answer})
        await converse(server, receive, send)

    async def _deny(self, scope: Scope, response: Response, send: Send) -> None:
        """Hand over why there is no WebSocket, as far as the engine can say so."""
        if "websocket.http.response" not in (scope.get("extensions") or ()):
            await send({"type": "websocket.close", "code": CloseCode.POLICY_VIOLATION})
            return
        kept = self._kept((name.encode(), value.encode()) for name, value in response.headers.raw_items())
        await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": kept})
        await send({"type": "websocket.http.response.body", "body": bytes(response.body or b""), "more_body": False})


def _target_of(scope: Scope) -> bytes:
    """Path and query that the server is asked for; what the engine has mounted the application under is left out."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    path, root = raw.partition(b"?")[0], quote(scope.get("root_path", "")).encode().rstrip(b"/")
    if root and (path == root or path.startswith(root + b"/")):
        path = path[len(root) :] or b"/"
    query: bytes = scope.get("query_string", b"")
    return path + b"?" + query if query else path


def _forwarded(scope: Scope) -> Headers:
    """The headers of a request that are handed on, with the client's address at the end of its way here."""
    headers = [(name.lower(), value) for name, value in scope["headers"] if name.lower() not in _OF_CONNECTION]
    if client := scope.get("client"):
        hops = [*(value for name, value in headers if name == _CLIENT), str(client[0]).encode()]
        headers = [pair for pair in headers if pair[0] != _CLIENT] + [(_CLIENT, b", ".join(hops))]
    return headers


def _head_of(scope: Scope) -> h11.Request:
    headers = _forwarded(scope)
    names = {name for name, _ in headers}
    if b"host" not in names:  # HTTP/1.0 needs none
        headers.append((b"host", b"localhost"))
    if b"content-length" not in names and any(name.lower() == b"transfer-encoding" for name, _ in scope["headers"]):
        headers.append((b"transfer-encoding", b"chunked"))
    headers.append((b"connection", b"close"))
    return h11.Request(method=scope["method"], target=_target_of(scope), headers=headers)


async def _ask(connection: h11.Connection, writer: asyncio.StreamWriter, receive: Receive) -> None:
    """Send a request's body; return when its client has left."""
    while (message := await receive())["type"] != "http.disconnect":
        # The server may answer before the body has ended, and read no more of it.
        with suppress(ConnectionError, h11.LocalProtocolError):
            body = memoryview(message.get("body", b""))  # an engine may have all of it before it says so
            for start in range(0, len(body), SENT_BYTES):
                writer.write(connection.send(h11.Data(data=bytes(body[start : start + SENT_BYTES]))) or b"")
                await writer.drain()
            if not message.get("more_body", False):
                writer.write(connection.send(h11.EndOfMessage()) or b"")


async def _refuse(error: ApiError, send: Send) -> None:
    """Answer without the server."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body_of_error(error)).encode(), "more_body": False})
