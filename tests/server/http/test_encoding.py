"""Samples that become files, over real HTTP: the files are those that the speech route makes of the same speech."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from server.audio.encoders import CONTENT_TYPES, MARK, PcmEncoder
from server.audio.formats import FORMATS
from server.audio.pcm import Samples, from_s16le, to_s16le
from server.http.routes.encoding import _File
from tests.server.answers import GOOD, PREFIXES, check_error
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, KEY, PATIENCE_SECONDS, RunningServer, run_server

ENCODE = "/v1/audio/encode"
PCM = {"content-type": "audio/pcm"}
NOISE = np.random.default_rng(5).integers(-(1 << 15), 1 << 15, 500_000, dtype="<i2").tobytes()
"""Samples of which FLAC makes no smaller file."""


def encode(client: httpx.Client, samples: bytes, audio_format: str, prefix: str = "/v1") -> httpx.Response:
    url = f"{prefix}/audio/encode?response_format={audio_format}"
    return client.post(url, content=samples, headers=PCM)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("audio_format", FORMATS)
def test_a_file_is_the_one_that_the_speech_route_makes(client: httpx.Client, audio_format: str, prefix: str) -> None:
    """Its mark too, and its length in its head: the fake engine makes the same samples each time."""

    def speak(name: str) -> httpx.Response:
        order = {**GOOD, "exact_frames": 150, "stream": False, "response_format": name}
        return client.post("/v1/audio/speech", json=order).raise_for_status()

    made = encode(client, speak("pcm").content, audio_format, prefix)
    assert made.status_code == 200, made.text
    assert made.headers["content-type"] == CONTENT_TYPES[audio_format]  # type: ignore[index]
    assert int(made.headers["content-length"]) == len(made.content)
    assert made.content == speak(audio_format).content
    assert (MARK.encode() in made.content) is (audio_format not in ("pcm", "aac"))


def test_all_samples_that_speech_may_have_come_back() -> None:
    every = np.arange(-32767, 32768, dtype="<i2").tobytes()
    assert to_s16le(from_s16le(every)) == every
    assert to_s16le(from_s16le(b"\x00\x80")) == b"\x01\x80", "-32768 is clipped"


def test_samples_may_come_in_parts_of_any_length(client: httpx.Client) -> None:
    """A part may end within a sample, and a body may be sent in chunks, without its length."""
    sizes = itertools.cycle([1, 7, 1 << 17, 3])

    def parts() -> Iterator[bytes]:
        begin = 0
        while begin < len(NOISE):
            end = begin + next(sizes)
            yield NOISE[begin:end]
            begin = end

    made = client.post(f"{ENCODE}?response_format=flac", content=parts(), headers=PCM)
    assert made.status_code == 200, made.text
    assert made.content == encode(client, NOISE, "flac").content
    assert client.post(ENCODE, content=NOISE, headers=PCM).content == encode(client, NOISE, "MP3 ").content


@pytest.mark.parametrize(
    ("body", "headers", "query", "says"),
    [
        (b"", PCM, "", "the body is empty"),
        (b"abc", PCM, "", "half a sample is left"),
        (b"RIFF1234WAVE", PCM, "", "this is a WAV file"),
        (b"abcd", {"content-type": "audio/wav"}, "", "the body is audio/wav; send"),
        (b"abcd", {**PCM, "content-encoding": "gzip"}, "", "the body is compressed; send"),
    ],
)
def test_what_is_no_bare_audio_is_refused(
    client: httpx.Client, body: bytes, headers: dict[str, str], query: str, says: str
) -> None:
    message = check_error(client.post(ENCODE + query, content=body, headers=headers), 400, "invalid_value")
    assert says in message
    assert "16 bit little-endian, mono, 24 kHz" in message


def test_an_unknown_format_is_refused(client: httpx.Client) -> None:
    message = check_error(encode(client, b"abcd", "midi"), 400, "invalid_value", "response_format")
    assert message == "response_format must be one of mp3, opus, aac, flac, wav, pcm"


def test_a_key_is_wanted_before_the_body(fake_server: RunningServer) -> None:
    head = f"POST {ENCODE} HTTP/1.1\r\nHost: x\r\nContent-Type: audio/pcm\r\nContent-Length: 90000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", fake_server.port), PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode())
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nconnection: close\r\n" in received


def test_a_client_that_sends_all_before_it_reads_is_told_what_is_wrong(fake_server: RunningServer) -> None:
    head = f"POST {ENCODE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: audio/wav\r\n"
    with socket.create_connection(("127.0.0.1", fake_server.port), PATIENCE_SECONDS) as connection:
        connection.sendall(f"{head}Content-Length: {30 * len(NOISE)}\r\n\r\n".encode() + 30 * NOISE)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")


def test_who_waits_for_leave_to_send_is_refused_without_it(fake_server: RunningServer) -> None:
    head = f"POST {ENCODE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: audio/wav\r\n"
    with socket.create_connection(("127.0.0.1", fake_server.port), PATIENCE_SECONDS) as connection:
        connection.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 90000000\r\n\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.startswith(b"HTTP/1.1 400 ")


def test_what_is_encoded_for_a_client_that_has_left_is_done_before_the_next_one() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    class Slow(PcmEncoder):
        def encode(self, samples: Samples) -> bytes:
            begun.set()
            go_on.wait(PATIENCE_SECONDS)
            done.append(samples.size)
            return b""

    async def test() -> None:
        with ThreadPoolExecutor(1) as thread:
            first, second = (_File(Slow(), lambda more: None, thread) for _ in range(2))
            leaving = asyncio.create_task(first.add(bytes(2)))
            await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
            leaving.cancel()
            begun.clear()
            following = asyncio.create_task(second.add(bytes(4)))
            assert not await asyncio.to_thread(begun.wait, 0.1)
            go_on.set()
            await following
        assert done == [1, 2]

    asyncio.run(test())


def test_an_http_1_0_client_gets_its_file(fake_server: RunningServer, client: httpx.Client) -> None:
    head = f"POST {ENCODE} HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\nContent-Type: audio/pcm\r\n"
    with socket.create_connection(("127.0.0.1", fake_server.port), PATIENCE_SECONDS) as connection:
        connection.sendall(f"{head}Content-Length: {len(NOISE)}\r\n\r\n".encode() + NOISE)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.partition(b"\r\n\r\n")[2] == encode(client, NOISE, "mp3").content


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose files may have 1 MB, and are not marked; a key has one request under way at a time."""
    scratch = tmp_path_factory.mktemp("small")
    write_bundle(scratch / "models", "custom")
    limits = {"KW_MAX_FILE": "1MB", "KW_MARK_SYNTHETIC": "off", "KW_MAX_REQUESTS_PER_KEY": "1"}
    with run_server(FAKE, scratch, KW_MODELS_DIR=str(scratch / "models"), **limits) as server:
        server.wait_ready()
        yield server


def test_a_file_that_would_be_too_long_is_refused_and_a_smaller_format_is_not(small: RunningServer) -> None:
    """The whole body is read before, since clients read no answer before they have sent all."""
    with small.client() as client:
        message = check_error(encode(client, 20 * NOISE, "flac"), 400, "invalid_value")
        assert message.startswith("the whole file would be longer than 1.0MB; send less of it at a time")
        made = encode(client, NOISE[: 8 * 48_000], "mp3")
        assert made.status_code == 200
        assert MARK.encode() not in made.content
        assert encode(client, NOISE[:4], "wav").status_code == 200, "what was refused counts no more"


def test_a_body_under_way_is_one_of_the_requests_of_its_key(small: RunningServer) -> None:
    head = f"POST {ENCODE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: audio/pcm\r\n"
    with small.client() as client:
        with socket.create_connection(("127.0.0.1", small.port), PATIENCE_SECONDS) as connection:
            connection.sendall(f"{head}Content-Length: 1000\r\n\r\nab".encode())
            while (answer := encode(client, b"abcd", "pcm")).status_code == 200:
                pass  # the other one has not been read yet
            check_error(answer, 429, "key_limit")
        while encode(client, b"abcd", "pcm").status_code == 429:
            pass  # that its client has left is noticed soon


def test_a_client_that_stops_sending_is_told_so(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "custom")
    with run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_REQUEST_TIMEOUT="1") as server:
        server.wait_ready()
        head = f"POST {ENCODE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: audio/pcm\r\n"
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS) as connection:
            connection.sendall(f"{head}Content-Length: 1000\r\n\r\nab".encode())
            received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.startswith(b"HTTP/1.1 408 ")
