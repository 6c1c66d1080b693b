"""Where a request ends, and what could end in two places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.http import framing
from server.http.framing import FramingError

GET = b"GET / HTTP/1.1\r\nHost: x"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("head", "normal"),
    [
        (GET, b"GET / HTTP/1.1\r\nHost:x"),
        (b"GET / HTTP/1.0", b"GET / HTTP/1.0"),
        (b"GET / HTTP/1.1\r\nhost:", b"GET / HTTP/1.1\r\nhost:"),
        (GET + b"\r\nA:\t b c \t", b"GET / HTTP/1.1\r\nHost:x\r\nA:b c"),
        (GET + b"\r\nA: \xc3\xa9\xff", b"GET / HTTP/1.1\r\nHost:x\r\nA:\xc3\xa9\xff"),
        (POST + b"Content-Length: 5 ", b"POST / HTTP/1.1\r\nHost:x\r\nContent-Length:5"),
        (POST + b"TRANSFER-ENCODING: Chunked ", b"POST / HTTP/1.1\r\nHost:x\r\nTRANSFER-ENCODING:chunked"),
        (POST + b"Expect: 100-Continue", b"POST / HTTP/1.1\r\nHost:x\r\nExpect:100-continue"),
        (b"GET / HTTP/1.1\r\nHost: [::1]:3000", b"GET / HTTP/1.1\r\nHost:[::1]:3000"),
    ],
)
def test_a_clear_head_is_normalised(head: bytes, normal: bytes) -> None:
    assert framing.normal_head(head) == normal
    assert len(normal) <= len(head)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET / HTTP/2.0",
        b"GET / HTTP/1.2",
        b"GET  / HTTP/1.1\r\nHost: x",
        b"GET / x HTTP/1.1\r\nHost: x",
        b"GET /\xff HTTP/1.1\r\nHost: x",
        b"G@T / HTTP/1.1\r\nHost: x",
        b"GET / HTTP/1.1",
        GET + b"\r\nHost: x",
        GET + b"\r\nHOST: y",
        b"GET / HTTP/1.0\r\nHost: x\r\nHost: y",
        b"GET / HTTP/1.1\r\nHost: a b",
        b"GET / HTTP/1.1\r\nHost: a/b",
        GET + b"\r\nno colon",
        GET + b"\r\n: nameless",
        GET + b"\r\nA: b\r\n c",
        GET + b"\r\nA: b\r\n\tc",
        GET + b"\r\nA: b\nB: c",
        GET + b"\r\nA: b\rB: c",
        GET + b"\r\nA: b\0c",
        GET + b"\r\nA\tB: c",
        *(
            POST + line
            for line in (
                b"Content-Length : 5",
                b"Content-Length\t: 5",
                b" Content-Length: 5",
                b"Transfer-Encoding : chunked",
                b"Content-Length: +5",
                b"Content-Length: -5",
                b"Content-Length: 0x5",
                b"Content-Length: 1_0",
                b"Content-Length: 5, 5",
                b"Content-Length: 5 5",
                b"Content-Length:",
                b"Content-Length: \xd9\xa3",
                b"Content-Length: 9999999999999999999",
                b"Content-Length: 5\r\nContent-Length: 5",
                b"Content-Length: 5\r\nTransfer-Encoding: chunked",
                b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                b"Transfer-Encoding: gzip, chunked",
                b"Transfer-Encoding: chunked, identity",
                b"Transfer-Encoding: xchunked",
                b"Transfer-Encoding: \x0bchunked",
                b"Transfer-Encoding:",
            )
        ),
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked",
    ],
)
def test_what_two_readers_could_read_in_two_ways(head: bytes) -> None:
    with pytest.raises(FramingError):
        framing.normal_head(head)


@given(head=st.binary(max_size=60) | st.binary(max_size=40).map(lambda more: GET + b"\r\nA: " + more))
def test_a_normal_head_is_normal(head: bytes) -> None:
    try:
        normal = framing.normal_head(head)
    except FramingError:
        return
    assert framing.normal_head(normal) == normal
    assert normal.count(b"\n") == normal.count(b"\r") == normal.count(b"\r\n") == head.count(b"\n")


@pytest.mark.parametrize("received", [b"", b"\r", b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nA: b\r\nC", GET])
def test_what_may_become_a_head_is_waited_for(received: bytes) -> None:
    framing.check_beginning(received)


@pytest.mark.parametrize(
    "received", [b"\x16\x03\x01", b" GET", b"\n", b"\0", b"\rG", b"GET /\n", GET + b"\r\nA: b\n\n"]
)
def test_what_cannot_become_a_head_is_refused_at_once(received: bytes) -> None:
    with pytest.raises(FramingError):
        framing.check_beginning(received)


@pytest.mark.parametrize(("line", "size"), [(b"0", 0), (b"5", 5), (b"fF", 255), (b"000a ;x=y", 10), (b"5;", 5)])
def test_the_size_of_a_chunk_is_read(line: bytes, size: int) -> None:
    assert framing.chunk_size(line) == size


@pytest.mark.parametrize(
    "line", [b"", b" 5", b"0x5", b"+5", b"-5", b"5_0", b"5h", b"5 5", b";x", b"5;\n", b"5;\r", b"f" * 16, b"\xd9\xa3"]
)
def test_malformed_sizes_of_chunks_are_refused(line: bytes) -> None:
    with pytest.raises(FramingError):
        framing.chunk_size(line)


def test_malformed_trailers_are_refused() -> None:
    framing.check_trailer(b"Checksum: 5")
    for line in (b"GET / HTTP/1.1", b" a: b", b"a : b", b"a: b\nc"):
        with pytest.raises(FramingError):
            framing.check_trailer(line)
