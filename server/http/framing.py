"""The rules of RFC 9112 on where a request ends, which Sanic does not enforce.

A proxy before the server and the server itself must find the same boundaries, else one of them takes the body of a
request for the next request. So everything that two readers could read in two ways is refused.
"""

from __future__ import annotations

import re

LINE_END = b"\r\n"
HEAD_END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") [!-~]+ HTTP/1\.([01])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIRST = re.compile(rb"\r$|" + _TOKEN)
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")


class FramingError(ValueError):
    """The bytes are not an HTTP request, or could be read in two ways; the message says why."""


def check_beginning(received: bytes | bytearray) -> None:
    """Check an incomplete head, so that the server does not wait for the rest of what cannot become a head.

    Raises:
        FramingError: no method begins like this, or a line ends without a carriage return.
    """
    if received and not _FIRST.match(received):
        raise FramingError("a request begins with its method")
    if _BARE_LINE_FEED.search(received):
        raise FramingError("a line of the request's head does not end in CR LF")


def normal_head(head: bytes) -> bytes:
    """Check a head, and return it without blanks around its values and with its transfer coding in lower case.

    Args:
        head: the bytes before the empty line.

    Raises:
        FramingError: the head is malformed.
    """
    request_line, *lines = head.split(LINE_END)
    first = _REQUEST_LINE.fullmatch(request_line)
    if not first:
        raise FramingError("the request line is malformed")
    fields = [_field(line) for line in lines]
    named: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        named.setdefault(name.lower(), []).append(value)
    old = first[2] == b"0"
    _check_host(named.get(b"host", []), needed=not old)
    lengths, codings = named.get(b"content-length", []), named.get(b"transfer-encoding", [])
    if len(lengths) + len(codings) > 1:
        raise FramingError("a request has one Content-Length or one Transfer-Encoding")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise FramingError("Content-Length is not a number")
    if codings and (old or codings[0].lower() != b"chunked"):
        raise FramingError("the only Transfer-Encoding of requests is chunked, in HTTP/1.1")
    lowered = (b"transfer-encoding", b"expect")
    kept = (name + b":" + (value.lower() if name.lower() in lowered else value) for name, value in fields)
    return LINE_END.join((request_line, *kept))


def _field(line: bytes) -> tuple[bytes, bytes]:
    found = _FIELD.fullmatch(line)
    if not found:  # also where a blank stands before the colon, or the line continues the one before
        raise FramingError("a header is malformed; it is NAME: VALUE on one line, without a blank before the colon")
    return found[1], found[2].rstrip(b" \t")


def _check_host(values: list[bytes], *, needed: bool) -> None:
    if len(values) > 1 or (needed and not values):
        raise FramingError("a request has one Host header")
    if values and not _HOST.fullmatch(values[0]):
        raise FramingError("the Host header is malformed")


def chunk_size(line: bytes) -> int:
    """Read a chunk's size in bytes from the line before it.

    Raises:
        FramingError: the line is not a hexadecimal number, with or without extensions.
    """
    found = _CHUNK.fullmatch(line)
    if not found:
        raise FramingError("the size of a chunk is malformed")
    return int(found[1], 16)


def check_trailer(line: bytes) -> None:
    """Check a header that follows the last chunk; its value is not used.

    Raises:
        FramingError: the header is malformed.
    """
    _field(line)
