"""POST `/audio/speech/batch`: vLLM-Omni's shape, over the fake engine."""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from server.errors import InvalidRequestError
from server.http.base64_parts import ENCODED_AT_A_TIME
from server.http.routes.speech_batch import _Batch, _Result
from server.speech.rendering import WholeFiles
from tests.server import clock
from tests.server.answers import PREFIXES, check_error
from tests.server.clock import settle, skip
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, KEY, RunningServer, run_server

FRAME_BYTES = 3840


def ask(client: httpx.Client, *items: Any, prefix: str = "/v1", **fields: Any) -> httpx.Response:
    return client.post(f"{prefix}/audio/speech/batch", json={"items": items, **fields})


@pytest.mark.parametrize("prefix", PREFIXES)
def test_items_have_what_the_batch_has_unless_they_say_otherwise(client: httpx.Client, prefix: str) -> None:
    shared = {"voice": "serena", "response_format": "pcm", "exact_frames": 2, "seed": 5, "speed": None}
    other = {"input": "Two.", "exact_frames": 3, "response_format": "wav", "voice": None}
    answer = ask(client, {"input": "One."}, other, prefix=prefix, **shared).json()
    assert (answer["total"], answer["succeeded"], answer["failed"]) == (2, 2, 0)
    first, second = answer["results"]
    assert {key: first[key] for key in ("index", "status", "media_type", "seed")} == {
        "index": 0,
        "status": "success",
        "media_type": "audio/pcm",
        "seed": 5,
    }
    assert len(b64decode(first["audio_data"])) == 2 * FRAME_BYTES
    assert first["usage"] == {
        "input_tokens": 1,
        "output_tokens": 2,
        "total_tokens": 3,
        "input_token_details": {"text_tokens": 1, "audio_tokens": 0},
    }
    whole = b64decode(second["audio_data"])
    assert int.from_bytes(whole[186:190], "little") == 3 * FRAME_BYTES == len(whole) - 190


def test_what_means_nothing_is_named(client: httpx.Client) -> None:
    items = ({"input": "One.", "colour": 1, "stream": False}, {"input": "Two.", "stream_format": "sse"}, {"input": ""})
    answer = ask(client, *items, user="me", colour=None, exact_frames=1)
    assert answer.headers["x-ignored"] == "user,colour,stream_format"
    assert (
        "x-ignored" not in ask(client, {"input": "One.", "stream": "", "stream_format": None}, exact_frames=1).headers
    )
    many = ask(client, *({"input": "x", **{f"{a} {b}": 1 for b in range(9)}} for a in range(9)), exact_frames=1)
    assert many.headers["x-ignored"].startswith("0%200,0%201,") and many.headers["x-ignored"].endswith(",61-more")


def test_wav_unless_it_is_said(client: httpx.Client) -> None:
    (result,) = ask(client, {"input": "One.", "exact_frames": 1}).json()["results"]
    assert result["media_type"] == "audio/wav"


def test_what_is_wrong_with_an_item_is_its_own(client: httpx.Client) -> None:
    items = [{"input": "One."}, {}, {"input": "x", "voice": "nobody"}, {"input": "fail-at-start"}, {"input": "Two."}]
    answer = ask(client, *items, exact_frames=1).json()
    assert (answer["total"], answer["succeeded"], answer["failed"]) == (5, 2, 3)
    assert [result["status"] for result in answer["results"]] == ["success", *["error"] * 3, "success"]
    missing, voice, failed = answer["results"][1:4]
    assert (missing["error"], missing["param"]) == ("input is required", "input")
    assert voice["param"] == "voice"
    assert failed["code"] == "speech_failed"
    assert "audio_data" not in failed


@pytest.mark.parametrize(
    "body", [{}, {"items": []}, {"items": "x"}, {"items": [1]}, {"items": [{"input": "x"}] * 33}, [{"input": "x"}]]
)
def test_what_is_no_batch_is_refused(client: httpx.Client, body: Any) -> None:
    param = "items" if isinstance(body, dict) else None
    check_error(client.post("/v1/audio/speech/batch", json=body), 400, "invalid_value", param)


def test_it_needs_a_key(visitor: httpx.Client) -> None:
    check_error(ask(visitor, {"input": "x"}), 401, "invalid_api_key")


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[RunningServer]:
    write_bundle(tmp_path / "models", "custom")
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "FAKE_FRAME_SECONDS": "0.02", "KW_MAX_FILE": "1MB"}
    with run_server(FAKE, tmp_path, KW_MAX_REQUESTS_PER_KEY="1", **settings) as server:
        server.wait_ready()
        yield server


def test_leaving_frees_the_row_and_files_are_bounded(slow: RunningServer) -> None:
    body = json.dumps({"items": [{"input": "One.", "exact_frames": 2000, "seed": 8100}, {"input": "Two."}]}).encode()
    head = f"POST /v1/audio/speech/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.create_connection(("127.0.0.1", slow.port)) as connection, slow.client() as client:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        slow.wait_event("submitted", seed=8100)
        check_error(ask(client, {"input": "x"}), 429, "key_limit")
    assert slow.wait_event("dropped", seed=8100)["frames"] < 2000
    assert len(slow.events("submitted")) == 1
    with slow.client("other") as client:
        (result,) = ask(client, {"input": "One.", "exact_frames": 300}).json()["results"]
        assert "longer than 1.0MB" in result["error"]


class Reader:
    """A response whose client takes each part of the body after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.body = ""
        self.left = False

    async def send(self, text: str) -> None:
        await skip(self._seconds if len(text) > ENCODED_AT_A_TIME else 0)
        self.body += text

    async def eof(self) -> None:
        pass

    def abort(self) -> None:
        self.left = True


class Made(_Batch):
    """A batch of items whose files are made already and are 40 seconds long."""

    files = WholeFiles(1)

    def __init__(self, reader: Reader, items: int = 1) -> None:
        async def respond(**_: object) -> Reader:
            return reader

        doors: Any = SimpleNamespace(limits=SimpleNamespace(timeout=10))
        request: Any = SimpleNamespace(respond=respond, id="x", transport=reader)
        super().__init__(doors, request, [InvalidRequestError("takes the item's place")] * items)

    async def _make(self, index: int, item: object) -> _Result:
        return _Result({"index": index}, bytearray(40 * ENCODED_AT_A_TIME), audio_seconds=40)


@pytest.mark.parametrize(("seconds", "left"), [(3.9, False), (9, True), (11, True)])
def test_a_client_may_be_slow_within_bounds(seconds: float, left: bool) -> None:
    reader = Reader(seconds)
    clock.run(Made(reader).answer())
    assert reader.left is left
    if not left:
        (result,) = json.loads(reader.body)["results"]
        assert b64decode(result["audio_data"], validate=True) == bytes(40 * ENCODED_AT_A_TIME)


def test_what_a_batch_holds_is_given_back_however_it_ends() -> None:
    class Stubborn(Made):
        async def _make(self, index: int, item: object) -> _Result:
            try:
                if index == 1:
                    self._held[index].enter_context(self.files.one())(1)
                await asyncio.Event().wait()
            finally:
                if index == 1:
                    await settle()
            raise AssertionError("nothing sets the event")

    async def work() -> None:
        batch = Stubborn(Reader(0), items=2)
        answering = asyncio.create_task(batch.answer())
        await skip(0)
        await skip(0)
        answering.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        answering.cancel()  # in its wait for the second item
        await asyncio.wait([answering])
        assert answering.cancelled()
        with batch.files.one() as grow:
            grow(1)

    clock.run(work())
