"""What a hostile or careless caller does to a server, over real connections; none of it is wrong by itself.

Each attack is a coroutine function. Its docstring's first line is its name in the table, and it returns what it got:
a status, or in words how the connection ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from server.bench.speak import TEXT

ROUTE = "/v1/audio/speech"
RARE = "\U0001f469"
"""A character of several tokens."""
BOOK = (TEXT + " ") * 120
PARAGRAPH = (TEXT + " ") * 12


@dataclass(frozen=True)
class Target:
    """The server that is attacked.

    Attributes:
        url: of a server that wants a key.
        key: that it knows.
        open_url: of a server that wants none.
        keys_file: of the first server, which reads it again whenever it changes.
        seconds: that an attack without an end of its own goes on for.
    """

    url: str
    key: str
    open_url: str
    keys_file: Path
    seconds: float

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        """Make a client that sends the server's key, or another key."""
        headers = {"authorization": f"Bearer {key or self.key}"}
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=600, limits=httpx.Limits(), trust_env=False
        )

    async def connect(self, url: str | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection on which any bytes can be sent."""
        address = urlsplit(url or self.url)
        return await asyncio.open_connection(address.hostname, address.port)

    def head(self, *lines: str, method: str = "POST", key: str | None = None, version: str = "1.1") -> bytes:
        """Make the head of a speech request with these lines, and the blank line."""
        fields = ["Host: localhost", f"Authorization: Bearer {self.key if key is None else key}", *lines]
        return "\r\n".join([f"{method} {ROUTE} HTTP/{version}", *fields, "", ""]).encode()


Attack = Callable[[Target], Coroutine[None, None, Iterable[str]]]


def body(text: str, **fields: object) -> dict[str, object]:
    """Make the body of a speech request."""
    return {"model": "tts-1", "voice": "alloy", "language": "en", "input": text, **fields}


async def ask(http: httpx.AsyncClient, text: str, **fields: object) -> str:
    """Send a request, read its whole answer without keeping it, and return a line on how that went."""
    try:
        async with http.stream("POST", ROUTE, json=body(text, **fields)) as response:
            async for _ in response.aiter_raw():
                pass
            return str(response.status_code)
    except httpx.TransportError as error:
        return f"broken off ({type(error).__name__})"


async def at_once(target: Target, number: int, text: str, **fields: object) -> list[str]:
    """Send some equal requests at the same time."""
    async with target.client() as http:
        return await asyncio.gather(*(ask(http, text, **fields) for _ in range(number)))


async def answered(reader: asyncio.StreamReader, seconds: float = 30.0) -> str:
    """Read the status that a raw connection is answered with, and whether it is closed afterwards."""
    try:
        async with asyncio.timeout(seconds):
            line = await reader.readline()
            if not line:
                return "closed without an answer"
            while await reader.read(1 << 16):
                pass
            return line.split()[1].decode()
    except TimeoutError:
        return "still open"
    except ConnectionError:
        return "reset"


async def drip(target: Target, data: bytes, pause: float, first: bytes = b"") -> str:
    """Send `first` at once and the rest byte by byte; return how long the server allows that."""
    reader, writer = await target.connect()
    writer.write(first)
    began = time.perf_counter()
    try:
        for byte in data:
            if reader.at_eof() or time.perf_counter() - began > target.seconds + 60:
                break
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    if not await reader.read(1 << 16):
                        break
    except ConnectionError:
        pass
    finally:
        writer.close()
    lasted = time.perf_counter() - began
    return "put up with" if lasted > target.seconds + 60 else "ended in time"


async def rare_characters(target: Target) -> Iterable[str]:
    """100,000 characters of several tokens each, for one frame"""
    return await at_once(target, 2, RARE * 100_000, exact_frames=1)


async def one_cluster(target: Target) -> Iterable[str]:
    """one character of 100,000 code points, three kinds"""
    async with target.client() as http:
        texts = ((RARE + "‍") * 50_000, "e" + "́" * 99_999, "a" + " " * 99_998 + "b")
        return await asyncio.gather(*(ask(http, text) for text in texts))


async def long_instruction(target: Target) -> Iterable[str]:
    """instructions of 100,000 characters, and eight of 2,000"""
    whole = await at_once(target, 2, TEXT, instructions="slowly and " * 9_000)
    return whole + await at_once(target, 8, TEXT, instructions="slowly and " * 180, exact_frames=8)


async def long_prompts(target: Target) -> Iterable[str]:
    """eight prompts as long as they may be, which never end a sentence"""
    return await at_once(target, 8, "and so on " * 600, exact_frames=16)


async def book(target: Target) -> Iterable[str]:
    """two books at once while somebody asks for a word"""
    async with target.client() as http:
        books = [asyncio.create_task(ask(http, BOOK, stream_format="audio")) for _ in range(2)]
        await asyncio.sleep(2)
        began, words = time.perf_counter(), []
        while time.perf_counter() - began < target.seconds:
            words.append(f"word {await ask(http, 'Yes.', exact_frames=8)}")
        for task in books:
            task.cancel()
        return words


async def silence(target: Target) -> Iterable[str]:
    """two times 300 s of silence as opus"""
    return await at_once(target, 2, "[300s]", response_format="opus", stream_format="audio")


async def tags(target: Target) -> Iterable[str]:
    """60 requests of silence alone"""
    return await at_once(target, 60, "[20s]", response_format="flac")


async def long_names(target: Target) -> Iterable[str]:
    """a voice formula, a model and a language of 800,000 characters"""
    async with target.client() as http:
        formula = "+".join(["alloy*0.00001"] * 60_000)
        fields = ({"voice": formula}, {"model": "m" * 800_000}, {"language": "l" * 800_000})
        return await asyncio.gather(*(ask(http, "Yes.", **one) for one in fields))


async def many_values(target: Target) -> Iterable[str]:
    """four bodies of 700,000 empty arrays"""
    data = b'{"model": "tts-1", "input": "Yes.", "more": [' + b"[]," * 700_000 + b"0]}"
    async with target.client() as http:
        answers = await asyncio.gather(*(http.post(ROUTE, content=data) for _ in range(4)))
    return [str(answer.status_code) for answer in answers]


async def times(target: Target) -> Iterable[str]:
    """times of the sentences of two texts of 50,000 words"""
    async with target.client() as http:
        fields = {"timestamps": "sentence", "stream_format": "sse"}
        tasks = [asyncio.create_task(ask(http, text * 50_000, **fields)) for text in ("a ", "b ")]
        done, pending = await asyncio.wait(tasks, timeout=target.seconds)
        for task in pending:
            task.cancel()
        return [task.result() for task in done] + ["left" for _ in pending]


async def no_sentences(target: Target) -> Iterable[str]:
    """four texts of 100,000 characters to be cut: words, blanks, marks, brackets"""
    async with target.client() as http:
        texts = ("word " * 20_000, "a" + "\n \t" * 33_000 + "b", "?!" * 50_000, "[0.1s" * 20_000)
        tasks = [asyncio.create_task(ask(http, text, stream_format="audio")) for text in texts]
        done, pending = await asyncio.wait(tasks, timeout=target.seconds)
        for task in pending:
            task.cancel()
        return [task.result() for task in done] + ["left" for _ in pending]


async def many_frames(target: Target) -> Iterable[str]:
    """four requests for as many frames as can be had, by a tiresome text"""
    return await at_once(target, 4, "no " * 300, max_new_tokens=100_000, stream_format="audio")


async def whole_wav(target: Target) -> Iterable[str]:
    """eight WAV files of five minutes, not streamed"""
    return await at_once(target, 8, "Yes. [299s]", response_format="wav", stream=False)


async def reads_nothing(target: Target) -> Iterable[str]:
    """eight listeners who take a few bytes a second"""

    async def sip() -> str:
        reader, writer = await target.connect()
        data = json.dumps(body(PARAGRAPH, response_format="wav", stream_format="audio")).encode()
        writer.write(target.head(f"Content-Length: {len(data)}", "Content-Type: application/json") + data)
        began = time.perf_counter()
        try:
            while await reader.read(64):
                if time.perf_counter() - began > target.seconds:
                    return "left"
                await asyncio.sleep(0.5)
            return "broken off"
        except ConnectionError:
            return "broken off"
        finally:
            writer.transport.abort()

    return await asyncio.gather(*(sip() for _ in range(8)))


async def bodies_of_strangers(target: Target) -> Iterable[str]:
    """64 bodies of 20 MB with a wrong key"""

    async def send() -> str:
        reader, writer = await target.connect()
        writer.write(target.head("Content-Length: 20000000", key="wrong"))
        try:
            for _ in range(20_000_000 // 65_536):
                if reader.at_eof() or writer.is_closing():
                    break
                writer.write(bytes(65_536))
                await writer.drain()
        except ConnectionError:
            return "401 or reset"
        finally:
            status = await answered(reader, 10)
            writer.transport.abort()
        return "401 or reset" if status in ("401", "reset") else status

    return await asyncio.gather(*(send() for _ in range(64)))


async def bodies_that_wait(target: Target) -> Iterable[str]:
    """256 requests of strangers whose bodies never come"""

    async def wait() -> str:
        reader, writer = await target.connect()
        writer.write(target.head("Content-Length: 20000000", key="wrong"))
        status = await answered(reader, 30)
        writer.transport.abort()
        return status

    return await asyncio.gather(*(wait() for _ in range(256)))


async def idle_connections(target: Target) -> Iterable[str]:
    """700 connections that say nothing, and a caller"""
    pairs = [await target.connect() for _ in range(700)]
    async with target.client() as http:
        got = [f"caller {await ask(http, 'Yes.', exact_frames=8)}" for _ in range(4)]
    for _, writer in pairs:
        writer.transport.abort()
    return got


async def slow_heads(target: Target) -> Iterable[str]:
    """32 heads of a byte a second"""
    return await asyncio.gather(*(drip(target, target.head("x: " + "y" * 500), 1.0) for _ in range(32)))


async def slow_bodies(target: Target) -> Iterable[str]:
    """32 bodies of a byte a second behind an early error, and with a key"""
    wrong, right = (target.head("Content-Length: 100000", key=key) for key in ("wrong", None))
    return await asyncio.gather(*(drip(target, b"x" * 1000, 1.0, head) for head in [wrong, right] * 16))


async def other_protocols(target: Target) -> Iterable[str]:
    """TLS, SOCKS and noise on the plain port"""
    context = ssl.create_default_context()
    address = urlsplit(target.url)
    began, got = time.perf_counter(), []
    try:
        async with asyncio.timeout(20):
            await asyncio.open_connection(address.hostname, address.port, ssl=context)
        got.append("a handshake")
    except (OSError, ssl.SSLError):
        got.append("closed" if time.perf_counter() - began < 5 else "closed late")
    except TimeoutError:
        got.append("still open")
    for data in (b"\x05\x01\x00", bytes(range(256)) * 300):
        reader, writer = await target.connect()
        writer.write(data)
        got.append(await answered(reader, 60))
        writer.transport.abort()
    return got


async def bursts(target: Target) -> Iterable[str]:
    """6,000 requests for `/livez`, 30,000 chunks of a byte and 40,000 pings, each of them sent at once"""
    health = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    chunked = target.head("Transfer-Encoding: chunked", "Content-Type: application/json", "Connection: close")
    upgrade = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {'A' * 22}==",
    )
    socket = target.head(*upgrade, method="GET").replace(ROUTE.encode(), f"{ROUTE}/stream".encode())

    async def send(data: bytes) -> str:
        reader, writer = await target.connect()
        try:
            writer.write(data)
            return await answered(reader, 60)
        finally:
            writer.transport.abort()

    return await asyncio.gather(
        send(health * 6000 + health[:-2] + b"Connection: close\r\n\r\n"),
        send(chunked + b"1\r\n \r\n" * 30_000 + b"0\r\n\r\n"),
        send(socket + b"\x89\x80\0\0\0\0" * 40_000 + b"\x88\x82\0\0\0\0\x03\xe8"),
    )


async def smuggling(target: Target) -> Iterable[str]:
    """lengths that two readers take differently"""
    hidden = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    got = []
    for lines in (
        [f"Content-Length : {len(hidden)}"],
        ["Content-Length: 3", f"Content-Length: {len(hidden)}"],
        [f"Content-Length: {len(hidden)}", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding : chunked"],
        [f"Content-Length: +{len(hidden)}"],
    ):
        reader, writer = await target.connect()
        writer.write(target.head(*lines) + hidden)
        got.append(await answered(reader, 10))
        writer.transport.abort()
    return got


async def old_http(target: Target) -> Iterable[str]:
    """events and audio by HTTP/1.0"""
    got = []
    for stream, begins in (("sse", b"data: "), ("audio", b"ID3\xff")):
        reader, writer = await target.connect()
        data = json.dumps(body("Yes.", stream_format=stream, exact_frames=8)).encode()
        writer.write(target.head(f"Content-Length: {len(data)}", version="1.0") + data)
        head, _, rest = (await reader.read(-1)).partition(b"\r\n\r\n")
        kept = b"content-length" not in head.lower() and rest[:1] in begins
        got.append(f"{stream} {'as asked' if kept else 'as something else'}")
        writer.transport.abort()
    return got


async def foreign_pages(target: Target) -> Iterable[str]:
    """pages of others, and names bound to this address, without a key"""
    got = []
    async with httpx.AsyncClient(base_url=target.open_url, timeout=60, trust_env=False) as http:
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"host": "evil.example"},
        ):
            response = await http.post(ROUTE, headers=headers, json=body("Yes.", exact_frames=8))
            got.append(str(response.status_code))
        honest = await http.post(ROUTE, json=body("Yes.", exact_frames=8))
        got.append(f"curl {honest.status_code}")
    return got


async def keys_at_once(target: Target) -> Iterable[str]:
    """sixteen `keys new` at once, each key then used"""

    again = os.urandom(4).hex()  # the labels of an earlier time are taken

    async def new(number: int) -> str:
        process = await asyncio.create_subprocess_exec(
            # What the command itself computes is not the server's to answer for.
            *("nice", "-n", "19", sys.executable, "-m", "server", "keys", "new", f"caller-{again}-{number}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "KW_API_KEYS_FILE": str(target.keys_file)},
        )
        told, why = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"no key was made: {why.decode()}")
        return told.decode().split()[-1]

    keys = await asyncio.gather(*(new(number) for number in range(16)))
    await asyncio.sleep(2)
    async with target.client() as http:
        answers = [await http.get("/v1/models", headers={"authorization": f"Bearer {key}"}) for key in keys]
    return [str(answer.status_code) for answer in answers]


async def draws(target: Target) -> Iterable[str]:
    """top_p of 1e-300, and greedy texts that repeat themselves"""
    async with target.client() as http:
        tiny = await ask(http, "Yes.", top_p=1e-300, exact_frames=8)
        texts = ("very " * 40, "0 " * 30, "no " * 100)
        return [tiny] + [await ask(http, text, temperature=0) for text in texts]


async def symbols(target: Target) -> Iterable[str]:
    """runs of symbols, of blanks and of breaks"""
    async with target.client() as http:
        texts = ("\U0001f602" * 30, "=" * 80, "Hello." + " " * 150 + "Bye.", "Hello." + "\n" * 60 + "Bye.", "─" * 60)
        return [await ask(http, text) for text in texts]


async def unknown_models(target: Target) -> Iterable[str]:
    """200 requests for models that do not exist"""
    async with target.client() as http:
        return [await ask(http, "Yes.", model=f"model-{number}") for number in range(200)]


async def leavers(target: Target) -> Iterable[str]:
    """100 callers who leave before any answer"""

    async def leave(http: httpx.AsyncClient) -> str:
        try:
            async with asyncio.timeout(0.05):
                return await ask(http, PARAGRAPH, stream_format="audio")
        except TimeoutError:
            return "left"

    async with target.client() as http:
        return await asyncio.gather(*(leave(http) for _ in range(100)))


ATTACKS: tuple[Attack, ...] = (
    rare_characters, one_cluster, long_instruction, long_prompts, book, silence, tags, long_names, many_values, times,
    no_sentences, many_frames, whole_wav, reads_nothing, bodies_of_strangers, bodies_that_wait, idle_connections,
    slow_heads, slow_bodies, other_protocols, bursts, smuggling, old_http, foreign_pages, keys_at_once, draws, symbols,
    unknown_models, leavers,
)  # fmt: skip
