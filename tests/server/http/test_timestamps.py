"""Times of what is heard, over HTTP: events, a header, and Kokoro-FastAPI's route."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.http.routes.speech import MAX_TIMES_CHARS
from tests.server.answers import check_error
from tests.server.fakes import SAMPLE_RATE, write_bundle
from tests.server.running import FAKE, RunningServer, run_server

FRAMES = 4
"""Of each chunk, since that is what the model's own budget allows."""
TEXT = "One is here. [0.25s] “Two” costs $5. [voice:serena] Three?\n\nFour."
SHOWN = ["One is here.", "[0.25s]", "“Two” costs $5.", "", "Three?", "", "Four."]
"""What the ranges of the pieces hold."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    scratch = tmp_path_factory.mktemp("times")
    write_bundle(scratch / "models", "short", generation={"max_new_tokens": FRAMES})
    with run_server(FAKE, scratch, KW_MODELS_DIR=str(scratch / "models"), KW_CORS_ORIGINS="*") as running:
        running.wait_ready()
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def post(client: httpx.Client, path: str = "/v1/audio/speech", **fields: Any) -> httpx.Response:
    given = {"input": TEXT, "voice": "ryan", "response_format": "pcm", "seed": 3, "timestamps": "sentence", **fields}
    return client.post(path, json={name: value for name, value in given.items() if value is not ...})


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]


def samples_of(body: bytes) -> np.ndarray:
    return np.frombuffer(body, "<i2")


def check(body: bytes, times: list[dict[str, Any]]) -> None:
    """See that the times are those of the samples: pieces one behind the other, loud where something is said."""
    samples = samples_of(body)
    ends = [round(piece["end_time"] * SAMPLE_RATE) for piece in times]
    starts = [round(piece["start_time"] * SAMPLE_RATE) for piece in times]
    assert starts == [0, *ends[:-1]]
    assert ends[-1] == len(samples)
    for piece, start, end in zip(times, starts, ends, strict=True):
        if piece.get("pause"):
            assert not samples[start:end].any()
        else:
            assert np.abs(samples[start : start + 100]).max() > 1000
            assert np.abs(samples[end - 200 : end]).max() > 1000


@pytest.mark.parametrize("speed", [1, 2, 0.6])
def test_events_tell_when_each_piece_begins_and_when_it_has_ended(client: httpx.Client, speed: float) -> None:
    events = events_of(post(client, stream_format="sse", speed=speed))
    assert events[-1]["type"] == "speech.audio.done"
    body = b"".join(b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta")
    told = [event for event in events if event["type"] == "speech.timestamp"]
    assert len(told) == 2 * len(SHOWN)
    for begun, ended in zip(told[::2], told[1::2], strict=True):
        assert begun == {**ended, "end_time": None}
        heard = 0
        for event in events[: events.index(begun)]:
            heard += len(b64decode(event.get("audio", ""))) // 2
        if speed == 1:
            assert heard == round(begun["start_time"] * SAMPLE_RATE), "it comes just before its first audio"
    times = told[1::2]
    check(body, times)
    assert [TEXT[piece["start_char"] : piece["end_char"]] for piece in times] == SHOWN
    assert [piece["text"] for piece in times] == ["" if part == "[0.25s]" else part for part in SHOWN]
    assert [piece.get("pause", False) for piece in times] == [not piece["text"] for piece in times]


def test_a_header_tells_the_same_of_a_whole_file(client: httpx.Client) -> None:
    response = post(client)
    assert response.headers["content-length"] == str(len(response.content))
    times = json.loads(response.headers["x-timestamps"])
    check(response.content, times)
    events = events_of(post(client, stream_format="sse"))
    ended = [event for event in events if event.get("end_time") is not None]
    assert ended == [{"type": "speech.timestamp", **piece} for piece in times]
    exposed = client.post("/v1/audio/speech", json={}, headers={"origin": "https://example.org"}).headers
    assert "x-timestamps" in exposed["access-control-expose-headers"]


def test_a_long_text_has_no_header(client: httpx.Client) -> None:
    text = "There is one more. " * (MAX_TIMES_CHARS // 100)
    response = post(client, input=text)
    assert response.status_code == 200
    assert "x-timestamps" not in response.headers
    told = [event for event in events_of(post(client, input=text, stream_format="sse")) if event.get("text")]
    assert len(told) == 2 * (MAX_TIMES_CHARS // 100)


def test_chunks_leave_the_audio_as_it_is_and_nothing_is_told_unasked(client: httpx.Client) -> None:
    text = "One is here. Two is here.\n\nThree is here."
    plain = post(client, input=text, timestamps=..., stream=False)
    timed = post(client, input=text, timestamps="chunk")
    assert timed.content == plain.content
    assert "x-timestamps" not in plain.headers
    assert [piece["text"] for piece in json.loads(timed.headers["x-timestamps"])] == [
        "One is here. Two is here.",
        "",
        "Three is here.",
    ]
    unasked = events_of(post(client, input=text, timestamps=..., stream_format="sse"))
    assert {event["type"] for event in unasked} == {"speech.audio.delta", "speech.audio.done"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"timestamps": "word"}, "must be 'sentence' or 'chunk'"),
        ({"timestamps": True}, "must be 'sentence' or 'chunk'"),
        ({"stream": True}, "stream_format sse"),
        ({"stream_format": "audio"}, "stream_format sse"),
        ({"exact_frames": 5}, "timestamps chunk"),
    ],
)
def test_times_that_cannot_be_told_are_refused(client: httpx.Client, fields: dict[str, Any], words: str) -> None:
    assert words in check_error(post(client, **fields), 400, "invalid_value", "timestamps")


def test_each_text_of_a_batch_has_its_own_times(client: httpx.Client) -> None:
    items = [{"input": "One. Two."}, {"input": "One. Two.", "timestamps": "sentence"}]
    found = client.post("/v1/audio/speech/batch", json={"items": items, "response_format": "pcm"}).json()["results"]
    assert "timestamps" not in found[0]
    check(b64decode(found[1]["audio_data"]), found[1]["timestamps"])
    assert [piece["text"] for piece in found[1]["timestamps"]] == ["One.", "", "Two."]


CAPTIONED = "/dev/captioned_speech"


def test_captioned_speech_is_one_object(client: httpx.Client) -> None:
    response = post(client, CAPTIONED, stream=False, timestamps=...)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.content))
    assert response.headers["x-seed"] == "3"
    found = response.json()
    assert list(found) == ["audio", "audio_format", "timestamps"]
    whole = post(client)
    assert b64decode(found["audio"]) == whole.content
    assert found["audio_format"] == "audio/pcm"
    times = json.loads(whole.headers["x-timestamps"])
    assert found["timestamps"] == [
        {"word": piece["text"], "start_time": piece["start_time"], "end_time": piece["end_time"]}
        for piece in times
        if piece["text"]
    ]


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_captioned_speech_comes_in_lines(client: httpx.Client, fields: dict[str, Any]) -> None:
    response = post(client, CAPTIONED, timestamps=..., **fields)
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["transfer-encoding"] == "chunked"
    lines = [json.loads(line) for line in response.text.splitlines()]
    whole = post(client, CAPTIONED, stream=False, timestamps=...).json()
    assert b"".join(b64decode(line["audio"]) for line in lines) == b64decode(whole["audio"])
    assert [word for line in lines for word in line["timestamps"]] == whole["timestamps"]
    assert {line["audio_format"] for line in lines} == {"audio/pcm"}
    assert len(lines) > 3
    assert lines[-1]["timestamps"], "the last one is told too"


def test_captioned_speech_without_times_and_of_chunks(client: httpx.Client) -> None:
    text = "One is here. Two is here."
    without = post(client, CAPTIONED, input=text, stream=False, timestamps=..., return_timestamps=False).json()
    assert without["timestamps"] is None
    assert b64decode(without["audio"]) == post(client, input=text, timestamps=..., stream=False).content
    lines = post(client, CAPTIONED, input=text, timestamps=..., return_timestamps=False).text.splitlines()
    assert {json.loads(line)["timestamps"] for line in lines} == {None}
    chunks = post(client, CAPTIONED, input=text, stream=False, timestamps="chunk").json()
    assert [word["word"] for word in chunks["timestamps"]] == [text]


def test_captioned_speech_has_the_errors_and_the_notes_of_speech(client: httpx.Client, server: RunningServer) -> None:
    check_error(post(client, CAPTIONED, input=" "), 400, "invalid_value", "input")
    check_error(post(client, CAPTIONED, model="nobody"), 404, "model_not_found", "model")
    check_error(post(client, CAPTIONED, return_timestamps="maybe"), 400, "invalid_value", "return_timestamps")
    with server.client(key=None) as stranger:
        check_error(post(stranger, CAPTIONED), 401, "invalid_api_key")
    response = post(client, CAPTIONED, stream_format="sse", volume_multiplier=1.0)
    assert response.headers["x-ignored"] == "volume_multiplier,stream_format"


def test_a_stream_of_captioned_speech_that_fails_breaks_off(client: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        post(client, CAPTIONED, input="fail-later", timestamps="chunk")


def test_captioned_speech_counts_toward_the_limit_of_its_key(tmp_path: Path) -> None:
    write_bundle(tmp_path / "models", "short", generation={"max_new_tokens": 2000})
    with (
        run_server(FAKE, tmp_path, KW_MODELS_DIR=str(tmp_path / "models"), KW_MAX_REQUESTS_PER_KEY="1") as running,
        running.client() as client,
        running.client() as other,
    ):
        running.wait_ready()
        fields = {"input": "hang", "voice": "ryan", "response_format": "pcm"}
        with client.stream("POST", CAPTIONED, json=fields) as response:
            lines = response.iter_lines()
            next(lines)
            assert post(other, CAPTIONED).status_code == 429
