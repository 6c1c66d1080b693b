"""Finds the file that a request's `ref_audio` means: in the request itself, in a folder, or on a listed host.

A server that fetches whatever address it is given can be made to ask what only it can reach. So no address is asked but
those of hosts that the operator lists, no redirection is followed, and the connection goes to the very address that
was checked: a name that means another address a moment later (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import binascii
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from server.errors import InvalidRequestError

FETCH_SECONDS = 10.0
"""For a whole file, from the name's look-up on."""

_FIELD = "ref_audio"
_DECODED_AT_A_TIME = 1 << 20
"""Signs of base64: the event loop waits while more are decoded, in whichever thread. A multiple of four."""
_READ_AT_A_TIME = 1 << 16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")
"""All that the Internet has of IPv6: https://www.iana.org/assignments/ipv6-address-space."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Sources:
    """Where recordings may come from.

    Attributes:
        most_bytes: of a file.
        hosts: names and addresses from which files may be fetched.
        folder: whose files may be named as `file://NAME`; None is no folder.
    """

    most_bytes: int
    hosts: tuple[str, ...] = ()
    folder: Path | None = None


def file_of(address: str, sources: Sources) -> bytes:
    """The bytes that an address means; it may take seconds, so that it has to be called in a thread.

    Args:
        address: a data URI, base64, an address of http or https, or `file://NAME`.
        sources: where it may come from.

    Raises:
        InvalidRequestError: it may not come from there, is too long, or cannot be had.
    """
    address = address.strip()
    scheme = address[:8].lower().partition(":")[0] if ":" in address[:8] else ""
    match scheme:
        case "data":
            head, comma, data = address.partition(",")
            if not comma or not head.lower().endswith(";base64"):
                raise _wrong("is no data URI in base64: data:audio/wav;base64,…")
            return _base64(data, sources.most_bytes)
        case "http" | "https":
            return _Download(_split(address), sources).read()
        case "file":
            return _in_folder(_split(address), sources)
        case "":
            return _base64(address, sources.most_bytes)
    raise _wrong("is a data URI, base64, or an address of http, https or file")


def _wrong(what: str) -> InvalidRequestError:
    return InvalidRequestError(f"{_FIELD} {what}", param=_FIELD)


def _too_long(most: int) -> InvalidRequestError:
    return _wrong(f"is a file of more than {most} bytes; send a shorter one, 3 to 20 s are best")


def _split(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise _wrong("is no address") from None
    return parts


def _base64(text: str, most: int) -> bytes:
    if not text.isascii():
        raise _wrong("is no base64")
    if any(blank in text for blank in "\r\n\t "):
        text = "".join(text.split())
    if len(text) // 4 * 3 > most + 3:
        raise _too_long(most)
    text = text.replace("-", "+").replace("_", "/").rstrip("=")
    text += "=" * (-len(text) % 4)
    pieces = (text[start : start + _DECODED_AT_A_TIME] for start in range(0, len(text), _DECODED_AT_A_TIME))
    try:
        body = b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)
    except binascii.Error:
        raise _wrong("is no base64; send a data URI, data:audio/wav;base64,…, or its base64 alone") from None
    if len(body) > most:
        raise _too_long(most)
    return body


def _in_folder(parts: SplitResult, sources: Sources) -> bytes:
    """A file of the folder; what lies elsewhere is not there, also behind a link."""
    if sources.folder is None:
        raise _wrong("names a file of the server, which has no folder for them; send the recording itself")
    folder = sources.folder.resolve()
    wanted = unquote(parts.path)
    try:
        for path in (folder / (unquote(parts.netloc) + wanted).lstrip("/"), Path(wanted)):  # by its name, or in full
            if (found := path.resolve()).is_relative_to(folder) and found.is_file():
                with found.open("rb") as stream:
                    body = stream.read(sources.most_bytes + 1)
                if len(body) > sources.most_bytes:
                    raise _too_long(sources.most_bytes)
                return body
    except InvalidRequestError:
        raise
    except (OSError, ValueError, RuntimeError):  # no name of a file, or a circle of links
        raise _wrong("names no file in the folder of the server's recordings") from None
    raise _wrong("names no file in the folder of the server's recordings")


def is_public(address: Address) -> bool:
    """Whether an address is one of the Internet, also if it is written as, or leads to, one of IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if not (address in _UNICAST if inner is None else is_public(inner)):
            return False
    return address.is_global and not address.is_multicast


class _Download:
    """The file at an address of http or https."""

    def __init__(self, parts: SplitResult, sources: Sources) -> None:
        self._parts, self._most = parts, sources.most_bytes
        self._listed = frozenset(sources.hosts)
        self._host = (parts.hostname or "").rstrip(".")
        if not sources.hosts:
            raise _wrong("is an address, and this server fetches none; send the recording itself, as a data URI")
        if self._host not in self._listed:
            raise _wrong(f"is on {self._host[:100] or 'no host'}, which is not listed in KW_REFERENCE_HOSTS")
        self._secure = parts.scheme.lower() == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._deadline = time.monotonic() + FETCH_SECONDS

    def read(self) -> bytes:
        connection = http.client.HTTPConnection(self._host, self._port)
        watch: threading.Timer | None = None
        try:
            # The connection forgets its socket as soon as an answer is to end with it, which is read all the same.
            connection.sock = sock = self._connected()
            # Each step has its own limit of time; this one ends a server that sends a byte now and then.
            watch = threading.Timer(FETCH_SECONDS, _cut, [sock])
            watch.daemon = True
            watch.start()
            path = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
            connection.request("GET", path, headers={"user-agent": "qwen3-tts-edge", "accept-encoding": "identity"})
            return self._body(connection.getresponse())
        except TimeoutError:
            raise _wrong(f"could not be fetched within {FETCH_SECONDS:g} s") from None
        except InvalidRequestError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = time.monotonic() >= self._deadline
            what = f"within {FETCH_SECONDS:g} s" if late else f"({type(error).__name__})"
            raise _wrong(f"could not be fetched {what}") from None
        finally:
            if watch is not None:
                watch.cancel()
            connection.close()

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        if 300 <= response.status < 400:
            raise _wrong("is an address that leads to another one; send that one")
        if response.status != 200:
            raise _wrong(f"could not be fetched: its host answered {response.status}")
        if (response.length or 0) > self._most:
            raise _too_long(self._most)
        body = bytearray()
        while part := response.read1(_READ_AT_A_TIME):
            body += part
            if len(body) > self._most:
                raise _too_long(self._most)
            if self._left() < 0:
                break
        if self._left() < 0:  # it may have been cut off, also within the headers
            raise TimeoutError
        if response.length:
            raise ConnectionError(f"{response.length} bytes are missing")
        return bytes(body)

    def _connected(self) -> socket.socket:
        """Connect to an address that has been checked."""
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
        for address in addresses:
            if not is_public(ipaddress.ip_address(address.partition("%")[0])) and address not in self._listed:
                raise _wrong(
                    f"is on {self._host}, an address of a private network; the operator may list it in "
                    "KW_REFERENCE_HOSTS"
                )
        failure: OSError = OSError("no address")
        for address in addresses:
            try:
                plain = socket.create_connection((address, self._port), timeout=max(self._left(), 0.01))
            except OSError as error:
                failure = error
                continue
            if not self._secure:
                return plain
            try:
                return ssl.create_default_context().wrap_socket(plain, server_hostname=self._host)
            except BaseException:
                plain.close()
                raise
        raise failure

    def _left(self) -> float:
        return self._deadline - time.monotonic()


def _cut(sock: socket.socket) -> None:
    """End a connection from another thread, so that whoever reads it goes on with an error."""
    with suppress(OSError):  # it has ended by itself
        sock.shutdown(socket.SHUT_RDWR)
