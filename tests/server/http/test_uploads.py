"""Bodies that bring recordings along: longer than others, and few at a time, until their requests have ended."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from server.errors import BusyError
from server.http.capacity import UPLOADS_AT_ONCE, Uploads
from tests.server.answers import check_error
from tests.server.audio.recordings import data_url, recorded
from tests.server.fakes import write_bundle
from tests.server.running import FAKE, run_server, wait_until

USUAL = 1000


def test_only_so_many_long_bodies_are_received_at_a_time() -> None:
    uploads = Uploads(3_000_000)
    assert uploads.longest > 4_000_000
    held = [uploads.one(uploads.longest, USUAL) for _ in range(UPLOADS_AT_ONCE)]
    for one in held:
        one.__enter__()
    with uploads.one(USUAL, USUAL):
        pass
    with pytest.raises(BusyError), uploads.one(USUAL + 1, USUAL):
        pass
    held.pop().__exit__(None, None, None)
    with pytest.raises(ZeroDivisionError), uploads.one(uploads.longest, USUAL):
        raise ZeroDivisionError  # a client that leaves gives its place back
    with uploads.one(uploads.longest, USUAL):
        pass


def test_a_long_body_counts_until_its_request_has_ended(tmp_path: Path) -> None:
    """It is in memory for as long as its recording waits to be encoded, and while it is spoken with."""
    write_bundle(tmp_path / "models", "base", model_type="base", speakers={}, generation={"max_new_tokens": 10})
    settings = {"KW_MODELS_DIR": str(tmp_path / "models"), "KW_SECRET_API_KEY": "", "KW_MAX_INPUT_CHARS": "1000"}
    gate = tmp_path / "gate"
    long = {"input": "Hello.", "ref_audio": data_url(recorded()), "ref_text": "slow", "pad": "x" * 2_100_000}
    settings |= {"KW_MAX_REFERENCE": "200kB", "FAKE_ENCODING_GATE": str(gate)}
    with (
        run_server(FAKE, tmp_path, **settings) as server,
        server.client(None) as client,
        ThreadPoolExecutor(UPLOADS_AT_ONCE) as threads,
    ):
        server.wait_ready()
        body = json.dumps(long).encode()
        assert len(body) > 0.9 * Uploads(200_000).longest

        def ask(text: str = "") -> httpx.Response:
            """Without a text of the recording the request is refused as soon as it is let in."""
            return client.post("/v1/audio/speech", content=body.replace(b'"slow"', json.dumps(text).encode()))

        def persist() -> httpx.Response:
            while (answer := ask("slow")).status_code == 429:
                pass
            return answer

        check_error(ask(), 400, "invalid_value", "ref_text")
        waiting = [threads.submit(persist) for _ in range(UPLOADS_AT_ONCE)]
        wait_until(lambda: ask().status_code == 429, "all have come")
        wait_until(lambda: len(server.events("encoding")) == 1, "and they wait for the first to be encoded")
        refused = ask()
        gate.touch()
        check_error(refused, 429, "queue_full")
        assert [one.result().status_code for one in waiting] == [200] * UPLOADS_AT_ONCE
        check_error(ask(), 400, "invalid_value", "ref_text")
